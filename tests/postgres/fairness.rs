//! More names are contended than there are places in the server's queues.

use std::path::Path;

use lock_tests::fairness::{bound, nobody_starves};
use lock_tests::postgres::PostgresOptions;

use crate::common::{DEADLINE, connected, lock, take, with_server};

#[test]
fn no_name_starves_however_many_there_are() {
    let options = PostgresOptions::default().config("max_connections = 100");
    lock_tests::run(bound(DEADLINE), async {
        if let Some(server) = options.start() {
            let program = Path::new(env!("CARGO_BIN_EXE_lock-probe"));
            nobody_starves(program, &server.url()).await;
        }
    });
}

/// A place in the queue is for a waiter, not for a holder.
#[test]
fn holders_use_up_no_place() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let provider = connected(server.builder().waiting_sessions(1)).await;
        let mut won = Vec::new();
        for name in ["one", "two", "three"] {
            let guard = take(&holder, name).await;
            let lock = lock(&provider, name);
            let waiting = tokio::spawn(async move { lock.acquire().await });
            server.until_waiting(1).await;
            guard.release().await.unwrap();
            won.push(waiting.await.unwrap().unwrap());
        }
        assert!(won.iter().all(|guard| !guard.is_lost()));
    });
}
