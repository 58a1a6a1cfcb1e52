//! The example does what it says.

use std::process::{Command, Output};

use tokio::net::TcpSocket;

use crate::common::with_server;

fn run(url: String) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_example-zookeeper"));
    command.env("ZOOKEEPER_URL", url);
    command.output().expect("the example runs")
}

#[test]
fn replicas_lead_one_after_another() {
    with_server(|place| async move {
        let url = format!("zookeeper://127.0.0.1:{}", place.port);
        let output = tokio::task::spawn_blocking(move || run(url)).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{errors}");
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
    // Nobody listens there, and nobody else can.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = deaf.local_addr().unwrap();
    let output = run(format!("zookeeper://user:hunter2@{address}"));
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("needs a ZooKeeper server"), "{errors}");
    assert!(errors.contains(&address.to_string()), "{errors}");
    assert!(errors.contains("refused"), "{errors}");
    assert!(!errors.contains("hunter2"), "{errors}");
}
