//! Faults of server and network. Each test shows that its fault happened.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, LockErrorKind, LockGuard, RedisProvider};
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, RedisServer, eventually};

use crate::common::{BOUND, connected, lock, take, with_server};

const SHORT_TIMEOUT: Duration = Duration::from_millis(200);

#[test]
fn a_lost_answer_is_undone() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let builder = RedisProvider::builder(format!("redis://127.0.0.1:{}", proxy.port()))
            .lease(Duration::from_secs(600))
            .response_timeout(SHORT_TIMEOUT);
        let provider = connected(builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        proxy.set(|fault| fault.to_client = Flow::Swallow);
        let error = lock(&provider, "order").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(proxy.swallowed() > 0, "an answer was lost");
        // Although nothing is answered, the key does not stay: it is deleted on that connection.
        server.raw.until_gone("order", BOUND).await;
        proxy.heal();
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn a_lost_answer_is_undone_when_the_connection_is_lost_too() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let builder = RedisProvider::builder(format!("redis://127.0.0.1:{}", proxy.port()))
            .lease(Duration::from_secs(600))
            .response_timeout(Duration::from_secs(5));
        let provider = connected(builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let trying = {
            let provider = provider.clone();
            tokio::spawn(async move { lock(&provider, "order").try_acquire().await })
        };
        eventually("it was taken", BOUND, || async {
            server.raw.get("order").await.is_some()
        })
        .await;
        let owner = server.raw.get("order").await;
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
        // It is asked again, in vain, and then given up.
        let error = trying.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert_eq!(server.raw.get("order").await, owner, "the key is there");
        assert!(
            proxy.counts().broken.load(Ordering::Relaxed) > 0,
            "the connection was lost"
        );
        proxy.heal();
        server.raw.until_gone("order", BOUND).await;
    });
}

#[test]
fn an_idle_connection_that_died_is_not_noticed_by_the_caller() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let provider = connected(RedisProvider::builder(url)).await;
        for round in 0..20 {
            let guard = take(&provider, "order").await;
            proxy.reset();
            guard.release().await.unwrap();
            if round % 2 == 0 {
                proxy.reset();
            }
            let guard = lock(&provider, "order")
                .try_acquire()
                .await
                .unwrap()
                .expect("free");
            guard.release().await.unwrap();
            assert_eq!(server.raw.get("order").await, None);
        }
        assert!(proxy.counts().broken.load(Ordering::Relaxed) >= 20);
    });
}

#[test]
fn a_pause_of_the_server_leaves_no_key() {
    with_server(|server| async move {
        let builder = server
            .builder()
            .lease(Duration::from_secs(600))
            .response_timeout(SHORT_TIMEOUT);
        let provider = connected(builder).await;
        take(&provider, "order").await.release().await.unwrap();
        server.raw.ask::<String>("CLIENT PAUSE 700 ALL").await;
        let error = lock(&provider, "order").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        server.raw.until_gone("order", BOUND).await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn a_killed_connection_is_made_anew() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let killing = {
            let raw = server.raw.clone();
            tokio::spawn(async move {
                let mut killed: u64 = 0;
                while killed < 12 {
                    killed += raw.ask::<u64>("CLIENT KILL TYPE pubsub").await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                killed
            })
        };
        let mut last = 0;
        while !killing.is_finished() {
            let guard = take(&provider, "order").await;
            let token = guard.fencing_token().expect("a token").get();
            assert!(token > last);
            last = token;
            // Killed twice while it asks, it cannot be sure; the lock is freed all the same.
            if let Err(error) = guard.release().await {
                assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            }
        }
        assert!(killing.await.unwrap() >= 12, "connections were killed");
        server.raw.until_gone("order", BOUND).await;
    });
}

#[test]
fn a_waiter_whose_connection_is_killed_gets_its_grant() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        for _ in 0..20 {
            let guard = take(&first, "order").await;
            let second = second.clone();
            let waiting = tokio::spawn(async move { take(&second, "order").await });
            server.raw.until_waiting("order", 1).await;
            assert!(server.raw.ask::<u64>("CLIENT KILL TYPE pubsub").await >= 1);
            // Whether it listens again or not.
            guard.release().await.unwrap();
            waiting.await.unwrap().release().await.unwrap();
        }
        server.raw.until_gone("order", BOUND).await;
        assert_eq!(server.raw.waiting("order").await, 0);
    });
}

#[test]
fn scripts_may_be_forgotten_at_any_time() {
    with_server(|server| async move {
        let lease = Duration::from_secs(3);
        let (first, second) = (
            connected(server.builder().lease(lease)).await,
            server.provider_with_long_lease().await,
        );
        let flushing = {
            let raw = server.raw.clone();
            tokio::spawn(async move {
                // Nobody holds a lock for longer than its lease without renewing it.
                let began = Instant::now();
                while began.elapsed() < lease * 3 / 2 {
                    raw.ask::<String>("SCRIPT FLUSH").await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        };
        let renewed = take(&first, "renewed").await;
        while !flushing.is_finished() {
            let guard = take(&first, "order").await;
            let second = second.clone();
            let waiting = tokio::spawn(async move { take(&second, "order").await });
            server.raw.until_waiting("order", 1).await;
            guard.release().await.unwrap();
            waiting.await.unwrap().release().await.unwrap();
        }
        assert!(!renewed.is_lost());
        renewed.release().await.unwrap();
    });
}

#[test]
fn a_restart_loses_locks_and_nothing_else() {
    with_server(|mut server| async move {
        let provider = connected(server.builder().lease(Duration::from_millis(900))).await;
        let guard = take(&provider, "order").await;
        server.process.restart_empty();
        guard.lost().await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn waiters_sit_out_a_restart() {
    with_server(|mut server| async move {
        let (first, second) = (server.provider().await, server.provider().await);
        let guard = take(&first, "order").await;
        let waiting = tokio::spawn(async move { take(&second, "order").await });
        server.raw.until_waiting("order", 1).await;
        server.process.restart_empty();
        // The server has forgotten the holder, and the waiter learns it.
        waiting.await.unwrap().release().await.unwrap();
        assert_eq!(
            guard.release().await.unwrap_err().kind(),
            LockErrorKind::Lost
        );
    });
}

#[test]
fn a_dead_server_is_told_at_once() {
    with_server(|mut server| async move {
        let provider = server.provider().await;
        take(&provider, "order").await.release().await.unwrap();
        server.process.kill();
        let start = Instant::now();
        for _ in 0..10 {
            let error = lock(&provider, "order").try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        }
        assert!(
            start.elapsed() < Duration::from_secs(12),
            "{:?}",
            start.elapsed()
        );
    });
}

#[test]
fn a_frozen_connection_is_left_for_another() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let builder = RedisProvider::builder(format!("redis://127.0.0.1:{}", proxy.port()))
            .lease(Duration::from_secs(3))
            .connect_timeout(SHORT_TIMEOUT)
            .response_timeout(SHORT_TIMEOUT);
        let provider = connected(builder).await;
        let guard = take(&provider, "order").await;
        let connections = proxy.counts().connections.load(Ordering::Relaxed);
        proxy.set(|fault| fault.to_server = Flow::Swallow);
        eventually("bytes vanish", BOUND, || async { proxy.swallowed() > 0 }).await;
        eventually("a new connection", BOUND, || async {
            proxy.counts().connections.load(Ordering::Relaxed) > connections
        })
        .await;
        proxy.heal();
        // Renewed in time on the new one.
        tokio::time::sleep(Duration::from_secs(4)).await;
        guard.release().await.unwrap();
    });
}

#[test]
fn a_frozen_holder_is_lost_before_the_server_gives_its_lock_away() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let builder = RedisProvider::builder(format!("redis://127.0.0.1:{}", proxy.port()))
            .lease(Duration::from_secs(1));
        let provider = connected(builder).await;
        let guard = take(&provider, "order").await;
        proxy.set(|fault| {
            fault.to_server = Flow::Swallow;
            fault.to_client = Flow::Swallow;
        });
        eventually("the server gives it away", BOUND, || async {
            let gone = server.raw.get("order").await.is_none();
            assert!(!gone || guard.is_lost(), "its holder does not know");
            gone
        })
        .await;
        guard.lost().await;
        eventually("bytes vanish", BOUND, || async { proxy.swallowed() > 0 }).await;
    });
}

#[test]
fn a_demoted_server_is_refused_and_a_promoted_one_taken() {
    with_server(|server| async move {
        let Some(other) = RedisServer::start_plain() else {
            return;
        };
        let provider =
            connected(server.builder().connect_timeout(Duration::from_millis(500))).await;
        take(&provider, "order").await.release().await.unwrap();
        server
            .raw
            .ask::<String>(&format!("REPLICAOF 127.0.0.1 {}", other.port()))
            .await;
        for _ in 0..3 {
            let error = lock(&provider, "order").try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        }
        let error = server.builder().connect().await.unwrap_err();
        assert!(error.to_string().contains("replica"), "{error}");
        server.raw.ask::<String>("REPLICAOF NO ONE").await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn a_full_server_takes_no_new_locks_and_gives_up_old_ones() {
    with_server(|server| async move {
        let provider = connected(server.builder().lease(Duration::from_millis(900))).await;
        let waiter = server.provider().await;
        let held = take(&provider, "held").await;
        let waiting = tokio::spawn(async move { take(&waiter, "held").await });
        server.raw.until_waiting("held", 1).await;
        server.raw.ask::<String>("CONFIG SET maxmemory 1").await;
        let error = lock(&provider, "order").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
        assert!(error.to_string().contains("memory"), "{error}");
        let keys: Vec<String> = server.raw.ask("KEYS order").await;
        assert!(keys.is_empty());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!held.is_lost(), "renewals go on");
        held.release().await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
        server.raw.ask::<String>("CONFIG SET maxmemory 0").await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn a_full_server_is_connected_to_and_locks_are_renewed() {
    with_server(|server| async move {
        let lease = Duration::from_secs(3);
        let provider = connected(server.builder().lease(lease)).await;
        let held = take(&provider, "held").await;
        server.raw.ask::<String>("CONFIG SET maxmemory 1").await;
        let refused: redis::RedisResult<String> = server.raw.try_ask("SET order x").await;
        assert_eq!(refused.unwrap_err().code(), Some("OOM"));
        assert_eq!(server.raw.ask::<u64>("CLIENT KILL TYPE pubsub").await, 1);
        let killed = Instant::now();
        eventually("a lease is over", lease + BOUND, || async {
            assert!(!held.is_lost(), "although renewals need no memory");
            killed.elapsed() > lease
        })
        .await;
        held.release().await.unwrap();
        server.provider().await;
    });
}

#[test]
fn a_timeout_while_the_server_is_out_of_reach_is_not_contention() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let provider = connected(RedisProvider::builder(url)).await;
        let held = take(&provider, "held").await;
        let wait = Duration::from_millis(600);
        let of = |name: &'static str| {
            let lock = lock(&provider, name);
            async move { lock.acquire_for(wait).await.unwrap_err().kind() }
        };
        let contender = server.provider().await;
        let contended = lock(&contender, "held").acquire_for(wait).await;
        assert_eq!(contended.unwrap_err().kind(), LockErrorKind::TimedOut);
        // It does not answer, and then it cannot be connected to.
        proxy.set(|fault| fault.to_client = Flow::Hold);
        assert_eq!(of("order").await, LockErrorKind::ProviderUnavailable);
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
        assert_eq!(of("order").await, LockErrorKind::ProviderUnavailable);
        proxy.heal();
        drop(held);
    });
}

const LONG_LEASE: Duration = Duration::from_secs(600);

/// Answers are held back, so that whatever happens needs none.
#[test]
fn a_release_in_the_background_and_what_comes_after_it_need_no_answer() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let builder = RedisProvider::builder(format!("redis://127.0.0.1:{}", proxy.port()))
            .lease(LONG_LEASE)
            .response_timeout(Duration::from_secs(5));
        let provider = connected(builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        let order = lock(&provider, "order").release_in_background();
        let guard = order.acquire().await.unwrap();
        let first = server.raw.get("order").await.expect("it is held");
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let start = Instant::now();
        guard.release().await.unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        // The server sees both on one connection, in order.
        let again = tokio::spawn(async move { order.try_acquire().await });
        eventually("it is held again", BOUND, || async {
            server
                .raw
                .get("order")
                .await
                .is_some_and(|owner| owner != first)
        })
        .await;
        proxy.heal();
        let again = again
            .await
            .unwrap()
            .unwrap()
            .expect("free for this process");
        again.release().await.unwrap();
        server.raw.until_gone("order", BOUND).await;
    });
}

#[test]
fn a_release_in_the_background_that_is_lost_leaves_no_holder() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let builder = RedisProvider::builder(format!("redis://127.0.0.1:{}", proxy.port()))
            .lease(LONG_LEASE)
            .response_timeout(Duration::from_secs(5));
        let provider = connected(builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        let order = lock(&provider, "order").release_in_background();
        for _ in 0..5 {
            let guard = take_in_background(&order).await;
            let held = server.raw.get("order").await;
            // Neither the release nor what follows reaches the server on this connection.
            proxy.set(|fault| fault.to_server = Flow::Swallow);
            guard.release().await.unwrap();
            let trying = {
                let order = order.clone();
                tokio::spawn(async move { order.try_acquire().await })
            };
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(server.raw.get("order").await, held);
            let broken = proxy.counts().broken.load(Ordering::Relaxed);
            proxy.heal();
            proxy.reset();
            eventually("the connection is broken", BOUND, || async {
                proxy.counts().broken.load(Ordering::Relaxed) > broken
            })
            .await;
            // What is left there is nobody's.
            let again = trying.await.unwrap().unwrap();
            drop(again.expect("free for this process"));
        }
        server.raw.until_gone("order", BOUND).await;
    });
}

async fn take_in_background(lock: &DistributedLock) -> LockGuard {
    lock.acquire_for(BOUND).await.expect("free soon")
}
