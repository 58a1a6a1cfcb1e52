//! Three workers take the same lock on a PostgreSQL server, and the server has nothing to do but
//! that: no table, and no right but to connect.
//!
//! Each worker has a provider of its own, as it would in a process of its own. They wait in the
//! server's queue, in the order in which they came, and the fencing token grows from one to the
//! next. Then an annotated function takes the lock.
//!
//! It needs a PostgreSQL server, 14 or newer, here or where the environment says:
//!
//! ```text
//! POSTGRES_URL=postgres://app@127.0.0.1/app cargo run --example postgres
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, LockError, PostgresProvider, distributed_lock};

const LOCAL: &str = "postgres://postgres@127.0.0.1/postgres";
const WORKERS: usize = 3;

async fn connect(url: &str) -> Result<PostgresProvider, LockError> {
    PostgresProvider::builder(url)
        .key_prefix("lock-examples:")
        .lease(Duration::from_secs(15))
        .connect_timeout(Duration::from_secs(2))
        .connect()
        .await
}

async fn worker(number: usize, lock: DistributedLock, start: Instant) -> Result<u64, LockError> {
    let guard = lock.acquire_for(Duration::from_secs(10)).await?;
    let token = guard
        .fencing_token()
        .expect("PostgreSQL 15 or newer gives every grant one")
        .get();
    let waited = start.elapsed().as_millis();
    println!("worker {number} has the lock after {waited} ms, token {token}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    guard.release().await?;
    Ok(token)
}

/// Runs with the lock of this invoice, or not at all.
#[distributed_lock(name = "invoice:{invoice}", timeout = "5s", guard = guard)]
async fn settle(invoice: u64) -> Result<(), LockError> {
    println!("settling invoice {invoice} under lock `{}`", guard.name());
    Ok(())
}

/// Each worker in turn.
async fn work(locks: Vec<DistributedLock>) -> Result<(), Box<dyn Error>> {
    println!("{WORKERS} workers want the same lock, each for 100 ms");
    let start = Instant::now();
    let mut working = tokio::task::JoinSet::new();
    for (number, lock) in locks.into_iter().enumerate() {
        working.spawn(worker(number + 1, lock, start));
    }
    let mut tokens = Vec::new();
    while let Some(worked) = working.join_next().await {
        tokens.push(worked??);
    }
    assert!(tokens.is_sorted(), "each token is larger than the last");
    Ok(())
}

async fn connect_all(url: &str) -> Result<Vec<DistributedLock>, LockError> {
    let mut locks = Vec::new();
    for _ in 0..WORKERS {
        let provider = Arc::new(connect(url).await?);
        locks.push(DistributedLock::on(provider, "report"));
    }
    Ok(locks)
}

async fn show(url: &str, locks: Vec<DistributedLock>) -> Result<(), Box<dyn Error>> {
    work(locks).await?;
    lock_runtime::register(connect(url).await?)?;
    settle(7).await?;
    println!("done");
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let url = std::env::var("POSTGRES_URL").unwrap_or_else(|_| LOCAL.to_owned());
    let locks = match connect_all(&url).await {
        Ok(locks) => locks,
        // The error says which server and why, and never the password.
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!(
                "This example needs a PostgreSQL server: start one, or name yours in POSTGRES_URL."
            );
            return ExitCode::FAILURE;
        }
    };
    let result = show(&url, locks).await;
    lock_runtime::shutdown().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
