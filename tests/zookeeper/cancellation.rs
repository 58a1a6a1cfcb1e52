//! Acquisitions that are abandoned at every await of the provider's. They leave nothing on the
//! server, as a client of the test's own sees.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lock_runtime::{AcquireRequest, LockErrorKind, LockMode, LockProvider, ZooKeeperProvider};
use lock_tests::any_lock::permits;
use lock_tests::proxy::Flow;

use crate::common::{BOUND, LONG, break_off, enter, lock, request, take, with_server};

/// Each mode has its own words and waits.
const MODES: [fn() -> LockMode; 5] = [
    || LockMode::Exclusive,
    || LockMode::Read,
    || LockMode::Write,
    || permits(1, 2),
    || permits(2, 2),
];

/// Polls so many times, each time when the future asks for it. `None` if it is not done by then.
async fn polled<F: Future>(mut future: Pin<&mut F>, times: usize) -> Option<F::Output> {
    let mut count = 0;
    poll_fn(|context| {
        count += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if count >= times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Asks for the lock, and abandons the acquisition after so many polls. Tells whether it was
/// granted before; then it is released.
async fn abandoned_after(
    provider: &ZooKeeperProvider,
    name: &str,
    mode: LockMode,
    waits: bool,
    polls: usize,
) -> bool {
    let (request, interest) = request(name, mode, waits);
    let mut acquiring = pin!(provider.acquire(&request));
    let outcome = polled(acquiring.as_mut(), polls).await;
    let in_time = outcome.is_some();
    interest.abandon();
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => acquiring.await,
    };
    match outcome {
        Ok(grant) => provider.release(&grant).await.unwrap(),
        Err(error) => assert_eq!(error.kind(), LockErrorKind::Contended, "{error}"),
    }
    in_time
}

#[test]
fn an_abandoned_acquisition_of_a_free_lock_leaves_nothing() {
    with_server(|place| async move {
        for (mode, waits) in MODES.iter().flat_map(|mode| [(mode, true), (mode, false)]) {
            let provider = place.provider().await;
            let mut polls = 1;
            while !abandoned_after(&provider, "order", mode(), waits, polls).await {
                // It has answered, so that is all that may be there.
                assert!(!place.exists("order").await, "after {polls} polls");
                polls += 1;
            }
            assert!(polls > 1, "it awaits something");
            assert!(!place.exists("order").await);
        }
    });
}

#[test]
fn an_abandoned_wait_leaves_nothing() {
    with_server(|place| async move {
        let (holder, provider) = (place.provider().await, place.provider().await);
        for (number, mode) in MODES.into_iter().enumerate() {
            let name = &number.to_string();
            let excluding = match mode() {
                LockMode::Read => LockMode::Write,
                LockMode::Permits { .. } => permits(2, 2),
                mode => mode,
            };
            let grant = enter(&holder, name, excluding).await;
            let children = place.children(name).await;
            let mut polls = 1;
            loop {
                // Once it waits for the one before it, nobody polls it any more.
                let patience = Duration::from_secs(2);
                let abandoned = abandoned_after(&provider, name, mode(), true, polls);
                if tokio::time::timeout(patience, abandoned).await.is_err() {
                    break;
                }
                assert_eq!(place.children(name).await, children, "after {polls}");
                polls += 1;
            }
            assert!(polls > 2, "it awaits a few answers");
            holder.release(&grant).await.unwrap();
        }
    });
}

/// The holder releases the lock at the moment at which the wait is abandoned.
#[test]
fn an_abandoned_wait_at_a_hand_over_leaves_nothing() {
    with_server(|place| async move {
        let (holder, provider) = (place.provider().await, place.provider().await);
        for polls in 1..12 {
            let guard = take(&holder, "order").await;
            let (request, interest) = AcquireRequest::new("order", LONG, true).unwrap();
            let mut acquiring = pin!(provider.acquire(&request));
            let queueing = polled(acquiring.as_mut(), usize::MAX);
            let queued = tokio::select! {
                biased;
                _ = queueing => false,
                _ = place.until_children("order", 2) => true,
            };
            assert!(queued, "somebody holds it");
            let (released, outcome) =
                tokio::join!(guard.release(), polled(acquiring.as_mut(), polls));
            released.unwrap();
            interest.abandon();
            let outcome = match outcome {
                Some(outcome) => outcome,
                None => acquiring.await,
            };
            if let Ok(grant) = outcome {
                provider.release(&grant).await.unwrap();
            }
            place.until_gone("order").await;
        }
    });
}

/// Callers drop acquisitions in the gate, on the way to the server and back, and when they are just
/// granted.
#[test]
fn acquisitions_dropped_at_any_moment_leave_nothing() {
    const ROUNDS: u32 = 60;
    const AWAY: Duration = Duration::from_millis(1);
    with_server(|place| async move {
        let (proxy, provider) = place.behind_proxy(|builder| builder).await;
        proxy.set(|fault| {
            fault.to_server = Flow::Delay(AWAY);
            fault.to_client = Flow::Delay(AWAY);
        });
        let holder = place.provider().await;
        let held = take(&holder, "held").await;
        let mut unfinished = 0;
        for round in 0..ROUNDS {
            for name in ["order", "held"] {
                let lock = lock(&provider, name);
                let acquiring = lock.acquire_for(BOUND);
                let dropped = tokio::time::timeout(AWAY * round / 4, acquiring).await;
                unfinished += u32::from(dropped.is_err());
            }
        }
        assert!(unfinished > ROUNDS, "{unfinished} were dropped");
        place.until_children("held", 1).await;
        held.release().await.unwrap();
        for name in ["order", "held"] {
            place.until_gone(name).await;
        }
    });
}

/// The creation was never answered, and there is no connection either when the waiter gives up.
#[test]
fn a_wait_abandoned_without_a_connection_is_taken_back_later() {
    with_server(|place| async move {
        let (proxy, provider) = place.behind_proxy(|builder| builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        let provider: Arc<ZooKeeperProvider> = provider;
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let waiting = {
            let provider = provider.clone();
            tokio::spawn(async move { lock(&provider, "order").acquire().await })
        };
        place.until_children("order", 1).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(place.children("order").await.len(), 1, "nobody was told");
        break_off(&proxy).await;
        place.until_gone("order").await;
    });
}
