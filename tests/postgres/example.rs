//! The example does what it says.

use std::process::{Command, Output};

use tokio::net::TcpSocket;

use crate::common::{DEADLINE, with_server};

fn run(url: String) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_example-postgres"));
    command.env("POSTGRES_URL", url);
    command.output().expect("the example runs")
}

#[test]
fn workers_take_turns() {
    with_server(|server| async move {
        let url = server.process.url();
        let output = tokio::task::spawn_blocking(move || run(url)).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{errors}");
        let taken = text.lines().filter(|line| line.contains(" has the lock "));
        assert_eq!(taken.count(), 3, "{text}");
        assert!(text.contains("settling invoice 7"), "{text}");
        assert!(text.ends_with("done\n"), "{text}");
        assert_eq!(server.locks(true).await, 0);
    });
}

#[test]
fn it_says_that_it_needs_a_server_and_no_password() {
    lock_tests::run(DEADLINE, async {
        // Nobody listens there, and nobody else can.
        let deaf = TcpSocket::new_v4().unwrap();
        deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = deaf.local_addr().unwrap().to_string();
        let output = run(format!("postgres://user:hunter2@{address}/app"));
        assert!(!output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("needs a PostgreSQL server"), "{errors}");
        assert!(errors.contains(&address), "{errors}");
        assert!(errors.contains("refused"), "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    });
}
