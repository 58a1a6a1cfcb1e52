//! What a body that holds a lock may ask for of the same lock.

use std::sync::Arc;

use lock_runtime::{DistributedRwLock, LockError, LockErrorKind, LockProvider, distributed_lock};
use lock_tests::eventually;

use super::Shared;

type Provider = Arc<dyn LockProvider>;

#[distributed_lock(name = "lock", provider = provider, mode = "read", timeout = "none")]
async fn reading<T>(provider: &Provider, body: impl Future<Output = T>) -> Result<T, LockError> {
    Ok(body.await)
}

#[distributed_lock(name = "lock", provider = provider, mode = "write", timeout = "none")]
async fn writing<T>(provider: &Provider, body: impl Future<Output = T>) -> Result<T, LockError> {
    Ok(body.await)
}

#[distributed_lock(
    name = "permits",
    provider = provider,
    permits = 3,
    take = take,
    timeout = "none"
)]
async fn taking<T>(
    provider: &Provider,
    take: u32,
    body: impl Future<Output = T>,
) -> Result<T, LockError> {
    Ok(body.await)
}

fn would_deadlock<T>(answer: Result<T, LockError>) {
    let error = answer.err().expect("it would wait for itself");
    assert_eq!(error.kind(), LockErrorKind::WouldDeadlock, "{error}");
}

/// Waiting behind a writer that waits for this very reader would never end.
pub(crate) async fn a_nested_read_joins_past_a_waiting_writer(fixture: Shared) {
    let provider = fixture.provider();
    let elsewhere = DistributedRwLock::on(fixture.elsewhere().await, "lock");
    let nested = reading(provider, async {
        let writer = {
            let elsewhere = elsewhere.clone();
            tokio::spawn(async move { elsewhere.write().await.unwrap().release().await })
        };
        eventually("the writer is seen to wait", fixture.bound(), async || {
            // In a task that holds nothing.
            let elsewhere = elsewhere.clone();
            let tried = tokio::spawn(async move { elsewhere.try_read().await.unwrap().is_none() });
            tried.await.unwrap()
        })
        .await;
        let inner = reading(provider, async {
            would_deadlock(writing(provider, async {}).await);
            reading(provider, async {}).await.expect("deeper still");
        });
        inner.await.expect("it joins its own grant");
        assert!(!writer.is_finished(), "somebody still reads");
        [writer]
    });
    let writer = tokio::time::timeout(fixture.bound(), nested).await;
    let [writer] = writer.expect("it waits for nobody").unwrap();
    let written = tokio::time::timeout(fixture.bound(), writer).await;
    written.expect("nobody reads any more").unwrap().unwrap();
}

pub(crate) async fn what_waits_for_itself_is_told(fixture: Shared) {
    let provider = fixture.provider();
    reading(provider, async {
        would_deadlock(writing(provider, async {}).await);
        // Nothing of it stays: others still come in.
        let other = fixture.rw("lock").read_for(fixture.bound()).await;
        other.unwrap().release().await.unwrap();
    })
    .await
    .unwrap();
    writing(provider, async {
        would_deadlock(writing(provider, async {}).await);
        would_deadlock(reading(provider, async {}).await);
    })
    .await
    .unwrap();
}

pub(crate) async fn permits_that_cannot_be_had_are_told(fixture: Shared) {
    let provider = fixture.provider();
    taking(provider, 2, async {
        would_deadlock(taking(provider, 2, async {}).await);
        would_deadlock(taking(provider, 3, async {}).await);
        let third = taking(provider, 1, async {
            would_deadlock(taking(provider, 1, async {}).await);
        });
        third.await.expect("one is left");
    })
    .await
    .unwrap();
    taking(provider, 3, async {}).await.unwrap();
}
