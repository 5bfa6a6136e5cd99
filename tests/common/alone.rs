//! A test that runs in a process of its own.

use std::any::type_name;
use std::io::{Write, stderr};
use std::process::Command;

/// Runs `body` in a process without other tests: this program, started again for the test that calls this function.
pub(crate) fn alone<F: FnOnce()>(body: F) {
    const MARK: &str = "EVERTOKEN_TEST_ALONE";
    let name = test_of(&body);
    if std::env::var(MARK).as_deref() == Ok(name) {
        return body();
    }
    // A body may change its user, or mount something over its directory, and can then not remove its temporary files.
    // This process can.
    let folder = tempfile::tempdir().unwrap();
    // Another user, which the body may become, can go through the directory to files of its own.
    #[cfg(unix)]
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture"]).env(MARK, name).env("TMPDIR", folder.path());
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("1 passed"), "no test is called {name}: {stdout}");
    folder.close().unwrap();
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| line.strip_prefix(NOT_TESTED))
        .for_each(not_tested);
}

/// Returns the name, with its modules, of the test function in which `closure` is written.
///
/// The type of a closure is named `program::module::function::{{closure}}`, so that a test that moves to another module
/// still finds itself.
pub(crate) fn test_of<F>(_closure: &F) -> &'static str {
    let path = type_name::<F>();
    let path = path.strip_suffix("::{{closure}}").expect("a closure that is written in a test");
    path.split_once("::").expect("a test stands in a program").1
}

/// Prints that a case cannot be tested here. Writes to stderr itself, because the test harness hides the output of
/// passing tests.
pub(crate) fn not_tested(what: &str) {
    stderr().write_all(format!("{NOT_TESTED}{what}\n").as_bytes()).unwrap();
}

const NOT_TESTED: &str = "NOT TESTED: ";
