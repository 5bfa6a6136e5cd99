//! A test in a process of its own.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{Write, stderr};
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
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| line.strip_prefix(NOT_TESTED))
        .for_each(not_tested);
}

/// Says that something could not be tested here, past the harness, which is silent about tests that pass.
pub(crate) fn not_tested(what: &str) {
    stderr().write_all(format!("{NOT_TESTED}{what}\n").as_bytes()).unwrap();
}

const NOT_TESTED: &str = "NOT TESTED: ";
