//! Tests of something that a process has one of: each runs in a process of its own.

use std::process::Command;

const CHILD: &str = "LOCK_TESTS_ISOLATED";

/// Runs `test` in a process of its own, with these variables in its environment. `path` is the
/// test's own name.
pub(crate) fn in_own_process(path: &str, environment: &[(&str, &str)], test: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return test();
    }
    let output = Command::new(std::env::current_exe().expect("a test knows its program"))
        .args(["--exact", path, "--nocapture"])
        .env(CHILD, "1")
        .envs(environment.iter().copied())
        .output()
        .expect("a test can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "`{path}` names no test: {text}");
}
