//! The example does what it says.

use lock_tests::ClosedPort;
use lock_tests::example::{printed, run};

use crate::common::with_server;

const PROGRAM: &str = env!("CARGO_BIN_EXE_example-postgres");
const VARIABLE: &str = "POSTGRES_URL";

#[test]
fn workers_take_turns() {
    with_server(|server| async move {
        let text = printed(PROGRAM, &[], (VARIABLE, server.process.url())).await;
        let taken = text.lines().filter(|line| line.contains(" has the lock "));
        assert_eq!(taken.count(), 3, "{text}");
        assert!(text.contains("settling invoice 7"), "{text}");
        assert!(text.ends_with("done\n"), "{text}");
        assert_eq!(server.locks(true).await, 0);
    });
}

#[test]
fn it_says_that_it_needs_a_server_and_no_password() {
    let black_hole = ClosedPort::new();
    let address = black_hole.address().to_string();
    let url = format!("postgres://user:hunter2@{address}/app");
    let output = run(PROGRAM, &[], (VARIABLE, &url));
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("needs a PostgreSQL server"), "{errors}");
    assert!(errors.contains(&address), "{errors}");
    assert!(errors.contains("refused"), "{errors}");
    assert!(!errors.contains("hunter2"), "{errors}");
}
