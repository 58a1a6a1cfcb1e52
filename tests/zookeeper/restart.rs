//! A server that is killed and started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::ZooKeeperServer;

use crate::common::{DEADLINE, Place, connected, lock, take, token};

#[test]
fn locks_waiters_and_tokens_outlive_a_restart() {
    lock_tests::run(DEADLINE, async {
        let Some(mut server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let (first, second) = (place.provider().await, place.provider().await);
        let guard = take(&first, "order").await;
        let waiter = tokio::spawn(async move { lock(&second, "order").acquire().await.unwrap() });
        let children = place.until_children("order", 2).await;
        server.kill();
        server.start_again();
        place.until_children("order", 2).await;
        assert_eq!(place.children("order").await, children, "as before");
        assert!(!guard.is_lost(), "the lease is long");
        let before = token(&guard);
        guard.release().await.unwrap();
        let guard = waiter.await.unwrap();
        assert!(token(&guard) > before);
        let before = token(&guard);
        guard.release().await.unwrap();
        server.kill();
        server.start_again();
        let guard = take(&first, "order").await;
        assert!(token(&guard) > before);
    });
}

const LEASE: Duration = Duration::from_secs(30);

/// A server comes back empty. A holder is told long before its lease ends, and processes that were
/// connected before take locks again.
#[test]
fn a_restart_without_the_data_is_a_loss() {
    lock_tests::run(DEADLINE, async {
        let Some(mut server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let builder = || {
            place
                .builder()
                .lease(LEASE)
                .connect_timeout(Duration::from_secs(2))
        };
        let (first, second) = (connected(builder()).await, connected(builder()).await);
        take(&second, "before").await.release().await.unwrap();
        let guard = take(&first, "order").await;
        let before = token(&guard);
        let waiter = {
            let second = second.clone();
            tokio::spawn(async move { take(&second, "order").await })
        };
        place.until_children("order", 2).await;
        server.kill();
        server.start_empty();
        let since = Instant::now();
        let other = connected(builder()).await;
        take(&other, "other").await.release().await.unwrap();
        tokio::time::timeout(LEASE / 3, guard.lost())
            .await
            .expect("the holder is told before its lease ends");
        let next = waiter.await.unwrap();
        assert!(since.elapsed() < LEASE / 2, "{:?}", since.elapsed());
        // Numbers begin anew: there are no tokens rather than lower ones.
        assert_eq!(next.fencing_token().map(|token| token.get() > before), None);
        drop(guard);
        take(&first, "free").await.release().await.unwrap();
        next.release().await.unwrap();
    });
}

/// A lock that a process has left behind in an outage is nobody else's lock.
#[test]
fn a_restart_makes_nobody_another_holder() {
    lock_tests::run(DEADLINE, async {
        let Some(mut server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let end = Arc::new(AtomicBool::new(false));
        let mut tasks = tokio::task::JoinSet::new();
        for process in 0..3 {
            let provider = place.provider().await;
            for task in 0..3 {
                let lock = lock(&provider, &format!("order:{process}:{task}"));
                let end = Arc::clone(&end);
                tasks.spawn(async move {
                    let mut taken = 0;
                    while !end.load(Ordering::Relaxed) {
                        match lock.try_acquire().await {
                            Ok(Some(guard)) => {
                                taken += 1;
                                drop(guard);
                            }
                            Ok(None) => return Err(taken),
                            Err(error) => {
                                let kind = error.kind();
                                assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{error}");
                            }
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Ok(taken)
                });
            }
        }
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            server.kill();
            server.start_again();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        end.store(true, Ordering::Relaxed);
        let taken = tasks.join_all().await;
        assert!(
            taken.iter().all(|taken| matches!(taken, Ok(1..))),
            "{taken:?}"
        );
    });
}
