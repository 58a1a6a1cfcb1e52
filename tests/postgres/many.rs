//! More contended names than places in the server's queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::PostgresProvider;
use lock_tests::postgres::PostgresOptions;
use tokio::task::JoinSet;

use crate::common::{connected, lock, take, with_server, with_server_of};

const TASKS_A_NAME: usize = 2;
const WORK: Duration = Duration::from_millis(5);

/// How two processes shared some names.
#[derive(Debug)]
#[allow(dead_code, reason = "all of it is printed")]
struct Shares {
    worst_wait: Duration,
    /// Sections of the name and process that had the fewest, and the most.
    fewest: u64,
    most: u64,
    sections: u64,
}

/// Has tasks of two providers contend for so many names.
async fn contend(providers: &[Arc<PostgresProvider>], names: usize, length: Duration) -> Shares {
    let end = Instant::now() + length;
    let worst = Arc::new(AtomicU64::new(0));
    let mut counts = Vec::new();
    let mut tasks = JoinSet::new();
    for provider in providers {
        for name in 0..names {
            let count = Arc::new(AtomicU64::new(0));
            counts.push(Arc::clone(&count));
            for _ in 0..TASKS_A_NAME {
                let lock = lock(provider, &format!("{names}:{name}"));
                let (count, worst) = (Arc::clone(&count), Arc::clone(&worst));
                tasks.spawn(async move {
                    while Instant::now() < end {
                        let begun = Instant::now();
                        let guard = lock.acquire().await.expect("the server answers");
                        let waited = begun.elapsed().as_micros() as u64;
                        worst.fetch_max(waited, Ordering::Relaxed);
                        tokio::time::sleep(WORK).await;
                        count.fetch_add(1, Ordering::Relaxed);
                        guard.release().await.expect("it was held");
                    }
                });
            }
        }
    }
    tasks.join_all().await;
    let counts: Vec<_> = counts.iter().map(|it| it.load(Ordering::Relaxed)).collect();
    Shares {
        worst_wait: Duration::from_micros(worst.load(Ordering::Relaxed)),
        fewest: counts.iter().copied().min().unwrap_or_default(),
        most: counts.iter().copied().max().unwrap_or_default(),
        sections: counts.iter().sum(),
    }
}

#[test]
fn no_name_starves_however_many_there_are() {
    let options = PostgresOptions::default().config("max_connections = 100");
    with_server_of(options, |server| async move {
        let length = std::env::var("LOCK_TESTS_FAIRNESS_SECONDS").ok();
        let length = length.map_or(4, |length| length.parse().expect("a number of seconds"));
        let length = Duration::from_secs(length);
        let providers = [server.provider().await, server.provider().await];
        let few = contend(&providers, 16, length).await;
        println!("16 names: {few:?}");
        for names in [40, 100] {
            let many = contend(&providers, names, length).await;
            println!(
                "{names} names: {many:?}, sessions {}",
                server.sessions().await
            );
            assert!(many.fewest > 0, "{many:?}");
            let longest = few.worst_wait.max(Duration::from_millis(100)) * 10;
            assert!(many.worst_wait <= longest, "{few:?}, {many:?}");
        }
    });
}

/// A place in the queue is for those who wait.
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
