//! Acquisitions that are dropped or given up at any moment.

use std::pin::pin;
use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::proxy::Flow;
use lock_tests::{eventually, poll_once};

use crate::common::{BOUND, lock, proxied, take, with_server};

/// A lease that plays no part.
const LONG: Duration = Duration::from_secs(600);

/// An acquisition is dropped, a little later each time. A proxy keeps every step of opening a
/// session, trying, waiting and leaving under way for a while.
#[test]
fn an_acquisition_can_be_dropped_at_every_step() {
    with_server(|server| async move {
        const STEPS: u64 = 60;
        let holder = server.provider().await;
        let (proxy, provider) = proxied(&server.process, LONG).await;
        let slow = Flow::Delay(Duration::from_millis(2));
        proxy.set(|fault| {
            fault.to_server = slow;
            fault.to_client = slow;
        });
        for (name, held) in [("held", true), ("free", false)] {
            let guard = match held {
                true => Some(take(&holder, name).await),
                false => None,
            };
            for step in 0..STEPS {
                // Of a length of its own, so that all of its sessions have to be opened.
                let lease = Duration::from_millis(2_000 + step);
                let acquiring = lock(&provider, name).lease(lease);
                let acquiring = tokio::spawn(async move { acquiring.acquire().await });
                tokio::time::sleep(Duration::from_millis(step)).await;
                acquiring.abort();
                drop(acquiring.await);
            }
            eventually("nobody waits, or holds what was dropped", BOUND, || async {
                server.locks(false).await == 0 && server.locks(true).await == i64::from(held)
            })
            .await;
            drop(guard);
            server.until_free(BOUND).await;
        }
        // The provider keeps one, for the next lock; so does the holder.
        eventually(
            "sessions that nobody needs are closed",
            3 * BOUND,
            || async { server.sessions().await <= 3 },
        )
        .await;
        take(&provider, "held").await.release().await.unwrap();
    });
}

#[test]
fn a_waiter_that_gives_up_leaves_the_queue() {
    with_server(|server| async move {
        let (holder, provider) = (server.provider().await, server.provider().await);
        let guard = take(&holder, "order").await;
        let waiting = lock(&provider, "order");
        let error = waiting
            .acquire_for(Duration::from_millis(300))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut);
        assert_eq!(server.locks(false).await, 0, "gone when it answers");
        for polls in 1..40 {
            let mut acquiring = pin!(waiting.acquire());
            for _ in 0..polls {
                assert!(poll_once(acquiring.as_mut()).await.is_none());
                tokio::task::yield_now().await;
            }
        }
        server.until_waiting(0).await;
        guard.release().await.unwrap();
        server.until_free(BOUND).await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

/// A wait is cancelled about when the grant comes, and nobody holds the lock afterwards.
#[test]
fn a_cancellation_that_meets_the_grant_leaves_nothing() {
    with_server(|server| async move {
        let (holder, provider) = (server.provider().await, server.provider().await);
        for round in 0..60_u64 {
            let guard = take(&holder, "order").await;
            let waiting = lock(&provider, "order");
            let acquiring = tokio::spawn(async move { waiting.acquire().await });
            server.until_waiting(1).await;
            let releasing = tokio::spawn(guard.release());
            tokio::time::sleep(Duration::from_micros(round * 20)).await;
            acquiring.abort();
            releasing.await.unwrap().unwrap();
            drop(acquiring.await);
            server.until_free(BOUND).await;
        }
        let sessions = server.sessions().await;
        assert!(sessions <= 6, "{sessions} sessions");
    });
}
