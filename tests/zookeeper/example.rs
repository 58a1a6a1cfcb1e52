//! The example does what it says.

use lock_tests::ClosedPort;
use lock_tests::example::{printed, run};

use crate::common::with_server;

const PROGRAM: &str = env!("CARGO_BIN_EXE_example-zookeeper");
const VARIABLE: &str = "ZOOKEEPER_URL";

#[test]
fn replicas_lead_one_after_another() {
    with_server(|place| async move {
        let url = format!("zookeeper://127.0.0.1:{}", place.port);
        let text = printed(PROGRAM, &[], (VARIABLE, url)).await;
        let terms: Vec<_> = text
            .lines()
            .filter(|line| line.contains(" s  replica "))
            .collect();
        assert_eq!(terms.len(), 12, "{text}");
        for term in terms.chunks(2) {
            assert!(term[0].contains(" leads, term 0x"), "{text}");
            assert!(term[1].ends_with(" steps down"), "{text}");
        }
        assert!(text.contains("6 terms, one after another"), "{text}");
        assert!(text.contains("was refused."), "{text}");
        let left = place.raw.list_children("/lock-runtime-example").await;
        assert_eq!(left.unwrap(), [""; 0]);
    });
}

#[test]
fn it_says_that_it_needs_a_server_and_no_password() {
    let black_hole = ClosedPort::new();
    let address = black_hole.address();
    let url = format!("zookeeper://user:hunter2@{address}");
    let output = run(PROGRAM, &[], (VARIABLE, &url));
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("needs a ZooKeeper server"), "{errors}");
    assert!(errors.contains(&address.to_string()), "{errors}");
    assert!(errors.contains("refused"), "{errors}");
    assert!(!errors.contains("hunter2"), "{errors}");
}
