//! Faults of server and network. Each test shows that its fault happened.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Wake};
use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::proxy::Flow;
use lock_tests::{FencedRegister, eventually};

use crate::common::{BOUND, lock, proxied, take, token, with_server};

const LEASE: Duration = Duration::from_secs(2);
/// The bound for what must happen at once. 50 ms are promised; a loaded machine takes longer to let
/// everybody run.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_session_that_is_ended_is_a_loss_at_once() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let guard = take(&provider, "order").await;
        let start = Instant::now();
        assert_eq!(server.terminate().await, 1);
        tokio::time::timeout(BOUND, guard.lost())
            .await
            .expect("lost");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert!(guard.is_lost());
        let error = guard.release().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost);
        assert!(error.to_string().contains("57P01"), "{error}");
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn a_connection_that_is_reset_is_a_loss_at_once() {
    with_server(|server| async move {
        let (proxy, provider) = proxied(&server.process, Duration::from_secs(600)).await;
        let guard = take(&provider, "order").await;
        let start = Instant::now();
        proxy.reset();
        tokio::time::timeout(BOUND, guard.lost())
            .await
            .expect("lost");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert!(proxy.counts().broken.load(Ordering::Relaxed) > 0);
        drop(guard);
        server.until_free(BOUND).await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("one waker of several");
    }
}

#[test]
fn a_panic_of_one_who_hears_of_a_loss_keeps_it_from_nobody() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let (mut panicking, mut guards) = (Vec::new(), Vec::new());
        for number in 0..16 {
            let guard = take(&provider, &format!("order:{number}")).await;
            if number % 2 == 0 {
                let mut lost = Box::pin(guard.lost());
                let waker = Arc::new(Panics).into();
                let polled = lost.as_mut().poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending());
                panicking.push(lost);
            }
            guards.push(guard);
        }
        assert!(server.terminate().await > 0);
        for guard in &guards {
            tokio::time::timeout(BOUND, guard.lost())
                .await
                .expect("lost");
        }
    });
}

#[test]
fn a_connection_that_swallows_is_lost_within_the_lease() {
    with_server(|server| async move {
        for only_answers in [false, true] {
            let (proxy, provider) = proxied(&server.process, LEASE).await;
            let other = server.provider().await;
            let guard = take(&provider, "order").await;
            let start = Instant::now();
            proxy.set(|fault| {
                fault.to_client = Flow::Swallow;
                if !only_answers {
                    fault.to_server = Flow::Swallow;
                }
            });
            let waiting = tokio::spawn(async move { take(&other, "order").await });
            tokio::time::timeout(BOUND, guard.lost())
                .await
                .expect("lost");
            assert!(start.elapsed() <= LEASE + Duration::from_secs(1));
            assert!(!waiting.is_finished(), "lost before it is another's");
            assert!(proxy.swallowed() > 0);
            let (register, stale) = (FencedRegister::default(), token(&guard));
            drop(guard);
            let next = waiting.await.unwrap();
            assert!(register.write("order", token(&next)));
            assert!(!register.write("order", stale));
            next.release().await.unwrap();
        }
    });
}

#[test]
fn a_lost_answer_is_undone() {
    with_server(|server| async move {
        let (proxy, provider) = proxied(&server.process, Duration::from_secs(600)).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let error = lock(&provider, "order").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        server.until_free(BOUND).await;
        proxy.heal();
        take(&provider, "order").await.release().await.unwrap();
    });
}

/// The word of the grant is lost, and nothing else on that connection would tell.
#[test]
fn a_waiter_whose_connection_is_dead_waits_on_another() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let guard = take(&holder, "order").await;
        let (proxy, provider) = proxied(&server.process, LEASE).await;
        let waiting = {
            let provider = provider.clone();
            tokio::spawn(async move { take(&provider, "order").await })
        };
        server.until_waiting(1).await;
        proxy.set(|fault| fault.to_client = Flow::Swallow);
        guard.release().await.unwrap();
        eventually("the grant is swallowed", BOUND, || async {
            proxy.swallowed() > 0
        })
        .await;
        proxy.heal();
        waiting.await.unwrap().release().await.unwrap();
    });
}

#[test]
fn an_outage_while_waiting_is_said() {
    with_server(|mut server| async move {
        let (holder, provider) = (server.provider().await, server.provider().await);
        let guard = take(&holder, "order").await;
        let waiting = {
            let provider = provider.clone();
            tokio::spawn(async move { lock(&provider, "order").acquire_for(BOUND).await })
        };
        server.until_waiting(1).await;
        server.process.kill();
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(guard.is_lost());
    });
}
