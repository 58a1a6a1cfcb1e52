//! One of several replicas leads; when it steps down or dies, the next one does.
//!
//! Each replica is a provider with a session of its own, as it would be in a process of its own. The
//! replicas queue at the server in the order in which they came, and each is woken by the one before
//! it. The fencing token says whose term it is.
//!
//! Needs a ZooKeeper server, here or where the environment says:
//!
//! ```text
//! ZOOKEEPER_URL=zookeeper://127.0.0.1:2181 cargo run --features zookeeper --example zookeeper
//! ```

use std::time::Duration;

use lock_runtime::{DistributedLock, FencingToken, LockError, ZooKeeperProvider};
use tokio::sync::mpsc;

const REPLICAS: usize = 3;

/// One term of one replica.
struct Term {
    replica: usize,
    token: FencingToken,
}

/// Waits for its turn, leads for a moment and steps down.
async fn replica(
    number: usize,
    lock: DistributedLock,
    terms: mpsc::UnboundedSender<Term>,
) -> Result<(), LockError> {
    let guard = lock.acquire_for(Duration::from_secs(30)).await?;
    let token = guard
        .fencing_token()
        .expect("ZooKeeper gives every grant one");
    println!("replica {number} leads, term {token}");
    // The leader's work, until the session is lost or the work is done.
    tokio::select! {
        () = guard.lost() => println!("replica {number} was cut off"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    let _ = terms.send(Term {
        replica: number,
        token,
    });
    guard.release().await
}

#[tokio::main]
async fn main() -> Result<(), LockError> {
    let url =
        std::env::var("ZOOKEEPER_URL").unwrap_or_else(|_| "zookeeper://127.0.0.1:2181".to_owned());
    let (sender, mut terms) = mpsc::unbounded_channel();
    let mut running = Vec::new();
    for number in 0..REPLICAS {
        let provider = ZooKeeperProvider::builder(&url)
            .directory("/lock-examples")
            .connect_timeout(Duration::from_secs(2))
            .connect()
            .await?;
        let lock = DistributedLock::on(std::sync::Arc::new(provider), "leader");
        running.push(tokio::spawn(replica(number, lock, sender.clone())));
    }
    drop(sender);
    for replica in running {
        replica.await.expect("a replica does not panic")?;
    }
    let mut last = None;
    while let Some(term) = terms.recv().await {
        assert!(last < Some(term.token), "terms grow");
        println!("replica {} had term {}", term.replica, term.token);
        last = Some(term.token);
    }
    lock_runtime::shutdown().await;
    Ok(())
}
