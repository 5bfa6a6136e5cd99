//! A test in a process of its own.
#![allow(dead_code, clippy::unwrap_used)]

use std::process::Command;

/// Runs `body` in a process in which no other test runs: this test's own program, started again for it alone.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    const MARK: &str = "EVERTOKEN_TEST_ALONE";
    if std::env::var(MARK).as_deref() == Ok(name) {
        return body();
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", name, "--nocapture"]).env(MARK, name).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "the test has run: {said}");
}
