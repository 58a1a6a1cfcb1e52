//! Faults of network and rights, for readers, writers and permits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_runtime::{LockErrorKind, LockMode, LockProvider, RedisProvider};
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, eventually};

use crate::common::{
    BOUND, LONG, Server, connected, enter, entering, permits, request, try_enter, with_server,
};

const SHORT_TIMEOUT: Duration = Duration::from_millis(200);

fn modes() -> [LockMode; 4] {
    let (read, write) = (LockMode::Read, LockMode::Write);
    [read, write, permits(3, 1), permits(3, 2)]
}

/// The key in which a holder of this mode stands.
fn key(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Read => "order.readers",
        LockMode::Write => "order.writer",
        _ => "order",
    }
}

fn queue(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Permits { .. } => "LLEN {order}:lk1:permits",
        _ => "LLEN {order}:lk1:rw",
    }
}

/// What keeps this mode waiting.
fn opposite(mode: LockMode) -> LockMode {
    match mode {
        LockMode::Permits { .. } => permits(3, 3),
        _ => LockMode::Write,
    }
}

async fn through(proxy: &FaultProxy, response_timeout: Duration) -> Arc<RedisProvider> {
    let builder = RedisProvider::builder(format!("redis://127.0.0.1:{}", proxy.port()))
        .lease(LONG)
        .response_timeout(response_timeout);
    connected(builder).await
}

async fn is_held(server: &Server, mode: LockMode) -> bool {
    server.raw.count(&format!("EXISTS {}", key(mode))).await == 1
}

#[test]
fn a_lost_answer_is_undone() {
    with_server(|server| async move {
        for mode in modes() {
            let proxy = FaultProxy::start(server.process.port()).await;
            let provider = through(&proxy, SHORT_TIMEOUT).await;
            let warm = enter(&provider, "order", mode).await;
            provider.release(&warm).await.unwrap();
            proxy.set(|fault| fault.to_client = Flow::Swallow);
            let error = try_enter(&provider, "order", mode).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            assert!(proxy.swallowed() > 0, "an answer was lost");
            server.raw.until_nothing_is_left().await;
            proxy.heal();
            let grant = enter(&provider, "order", mode).await;
            provider.release(&grant).await.unwrap();
        }
    });
}

#[test]
fn a_lost_answer_is_undone_when_the_connection_is_lost_too() {
    with_server(|server| async move {
        for mode in modes() {
            let proxy = FaultProxy::start(server.process.port()).await;
            let provider = through(&proxy, Duration::from_secs(5)).await;
            let warm = enter(&provider, "order", mode).await;
            provider.release(&warm).await.unwrap();
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let trying = {
                let provider = Arc::clone(&provider);
                tokio::spawn(async move { try_enter(&provider, "order", mode).await.map(drop) })
            };
            eventually("it was done", BOUND, || is_held(&server, mode)).await;
            proxy.set(|fault| fault.refuse = true);
            proxy.reset();
            let error = trying.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            assert!(is_held(&server, mode).await, "it is there");
            assert!(proxy.counts().broken.load(Ordering::Relaxed) > 0);
            proxy.heal();
            server.raw.until_nothing_is_left().await;
        }
    });
}

/// The server has done the first, and its answer is lost.
#[test]
fn a_request_that_is_repeated_counts_once() {
    with_server(|server| async move {
        for mode in [
            LockMode::Read,
            LockMode::Write,
            permits(1, 1),
            permits(3, 2),
        ] {
            let proxy = FaultProxy::start(server.process.port()).await;
            let provider = through(&proxy, Duration::from_secs(5)).await;
            let warm = enter(&provider, "order", mode).await;
            provider.release(&warm).await.unwrap();
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let (entering, _) = entering(&provider, "order", mode, LONG);
            eventually("it was done", BOUND, || is_held(&server, mode)).await;
            proxy.reset();
            proxy.heal();
            let grant = entering.await.unwrap().unwrap();
            let count = match mode {
                LockMode::Read => server.raw.count("SCARD order.readers").await,
                LockMode::Permits { take, .. } => {
                    let out = server.raw.count("ZCARD order").await;
                    assert_eq!(out, u64::from(take.get()));
                    1
                }
                _ => 1,
            };
            assert_eq!(count, 1);
            provider.renew(&grant).await.unwrap();
            provider.release(&grant).await.unwrap();
            server.raw.until_nothing_is_left().await;
        }
    });
}

#[test]
fn a_waiter_whose_connection_is_lost_gets_its_grant() {
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        for mode in modes() {
            let proxy = FaultProxy::start(server.process.port()).await;
            let waiter = through(&proxy, Duration::from_secs(5)).await;
            let held = enter(&holder, "order", opposite(mode)).await;
            let (waiting, _) = entering(&waiter, "order", mode, LONG);
            server.raw.until(queue(mode), 1).await;
            proxy.reset();
            holder.release(&held).await.unwrap();
            let waiting = tokio::time::timeout(BOUND, waiting);
            let grant = waiting.await.expect("soon").unwrap().unwrap();
            waiter.release(&grant).await.unwrap();
            server.raw.until_nothing_is_left().await;
        }
    });
}

#[test]
fn a_waiter_that_leaves_without_a_connection_leaves_nothing() {
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        for mode in modes() {
            let proxy = FaultProxy::start(server.process.port()).await;
            let waiter = through(&proxy, SHORT_TIMEOUT).await;
            let held = enter(&holder, "order", opposite(mode)).await;
            let (waiting, interest) = entering(&waiter, "order", mode, LONG);
            server.raw.until(queue(mode), 1).await;
            proxy.set(|fault| fault.to_server = Flow::Swallow);
            interest.abandon();
            let error = waiting.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
            assert!(proxy.swallowed() > 0);
            proxy.heal();
            server.raw.until(queue(mode), 0).await;
            holder.release(&held).await.unwrap();
            server.raw.until_nothing_is_left().await;
        }
    });
}

#[test]
fn a_release_is_made_again_on_another_connection() {
    with_server(|server| async move {
        for mode in modes() {
            let proxy = FaultProxy::start(server.process.port()).await;
            let provider = through(&proxy, Duration::from_secs(5)).await;
            for _ in 0..5 {
                let grant = enter(&provider, "order", mode).await;
                proxy.reset();
                provider.release(&grant).await.unwrap();
                assert!(!is_held(&server, mode).await);
            }
            // Its answer is lost, when it was done.
            let grant = enter(&provider, "order", mode).await;
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let releasing = {
                let provider = Arc::clone(&provider);
                tokio::spawn(async move { provider.release(&grant).await })
            };
            server.raw.until_nothing_is_left().await;
            proxy.reset();
            proxy.heal();
            releasing.await.unwrap().unwrap();
        }
    });
}

#[test]
fn what_is_kept_for_a_while_is_kept_although_the_answer_is_lost() {
    with_server(|server| async move {
        for mode in [LockMode::Write, permits(3, 2)] {
            let proxy = FaultProxy::start(server.process.port()).await;
            let provider = through(&proxy, Duration::from_secs(5)).await;
            let grant = Arc::new(enter(&provider, "order", mode).await);
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let keeping = {
                let (provider, grant) = (Arc::clone(&provider), Arc::clone(&grant));
                let rest = Duration::from_secs(2);
                tokio::spawn(async move { provider.release_later(&grant, rest).await })
            };
            let kept = || async {
                let holder = match mode {
                    LockMode::Write => server.raw.get("order.writer").await,
                    _ => {
                        let first: Vec<String> = server.raw.ask("ZRANGE order 0 0").await;
                        first.into_iter().next()
                    }
                };
                holder.is_some_and(|holder| holder.ends_with(":kept"))
            };
            eventually("it was done", BOUND, kept).await;
            proxy.reset();
            proxy.heal();
            keeping.await.unwrap().unwrap();
            assert!(kept().await);
            // It may be asked twice if its connection was reset too, and then nobody knows.
            let _ = provider.release(&grant).await;
            assert!(kept().await);
            if mode != LockMode::Write {
                let other = enter(&provider, "order", permits(3, 1)).await;
                provider.release(&other).await.unwrap();
                assert_eq!(server.raw.count("ZCARD order").await, 2);
            }
            let next = enter(&provider, "order", mode).await;
            provider.release(&next).await.unwrap();
            server.raw.until_nothing_is_left().await;
        }
    });
}

#[test]
fn whether_a_grant_may_be_shared_is_not_waited_for() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let provider = through(&proxy, SHORT_TIMEOUT).await;
        let (request, _interest) = request("order", LockMode::Read, LONG, false);
        let read = provider.acquire(&request).await.unwrap();
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
        let error = provider.may_share(&read).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        proxy.heal();
        eventually("it is told again", BOUND, || async {
            let told = provider.may_share(&read).await;
            if told.is_err() {
                // Whoever holds a lock has the connection made anew.
                let _ = provider.renew(&read).await;
            }
            told.is_ok_and(|may| may)
        })
        .await;
        provider.release(&read).await.unwrap();
    });
}
