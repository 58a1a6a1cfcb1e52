//! How long an acquisition waits, and what it says when it gives up.

use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::{eventually, poll_once};

use super::Shared;

const SHORT: Duration = Duration::from_millis(100);

pub(crate) async fn zero_timeout_is_contended(fixture: Shared) {
    let lock = fixture.lock("lock");
    let _guard = lock.acquire().await.unwrap();
    let start = Instant::now();
    let error = lock.acquire_for(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Contended);
    assert_eq!(error.name().map(AsRef::as_ref), Some("lock"));
    assert!(lock.try_acquire().await.unwrap().is_none());
    assert!(
        lock.try_acquire_for(Duration::ZERO)
            .await
            .unwrap()
            .is_none()
    );
    assert!(start.elapsed() < fixture.bound());
}

pub(crate) async fn short_timeout(fixture: Shared) {
    let lock = fixture.lock("lock");
    let _guard = lock.acquire().await.unwrap();
    let start = Instant::now();
    let error = lock.acquire_for(SHORT).await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TimedOut);
    assert!(
        start.elapsed() >= SHORT,
        "it waited for {:?}",
        start.elapsed()
    );
    assert!(start.elapsed() < SHORT + fixture.bound());
    assert!(lock.try_acquire_for(SHORT).await.unwrap().is_none());
    assert!(start.elapsed() >= 2 * SHORT);
    // The one that holds it has noticed nothing.
    assert!(!_guard.is_lost());
}

pub(crate) async fn long_timeout_is_granted(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    let mut waiting = Box::pin(lock.acquire_for(fixture.bound()));
    assert!(poll_once(waiting.as_mut()).await.is_none(), "it waits");
    guard.release().await.unwrap();
    let second = waiting.await.unwrap();
    fixture.assert_held(&lock).await;
    second.release().await.unwrap();
}

pub(crate) async fn waits_for_ever(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    let mut waiting = Box::pin(lock.acquire());
    let waited = tokio::time::timeout(3 * SHORT, &mut waiting).await;
    assert!(waited.is_err(), "it waits on");
    guard.release().await.unwrap();
    let granted = tokio::time::timeout(fixture.bound(), waiting)
        .await
        .expect("granted");
    granted.unwrap().release().await.unwrap();
}

pub(crate) async fn endless_timeout(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire_for(Duration::MAX).await.unwrap();
    let mut waiting = Box::pin(lock.try_acquire_for(Duration::MAX));
    assert!(poll_once(waiting.as_mut()).await.is_none(), "it waits");
    guard.release().await.unwrap();
    let granted = tokio::time::timeout(fixture.bound(), waiting)
        .await
        .expect("granted");
    assert!(granted.unwrap().is_some());
}

/// Whoever queues behind a waiter that gives up is served all the same.
pub(crate) async fn timed_out_waiter_stops_nobody(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    let mut first = Box::pin(lock.acquire_for(SHORT));
    assert!(poll_once(first.as_mut()).await.is_none());
    let mut second = Box::pin(lock.acquire());
    assert!(poll_once(second.as_mut()).await.is_none());
    assert_eq!(first.await.unwrap_err().kind(), LockErrorKind::TimedOut);
    guard.release().await.unwrap();
    let granted = tokio::time::timeout(fixture.bound(), second)
        .await
        .expect("granted");
    drop(granted.unwrap());
    eventually("free again", fixture.bound(), || async {
        lock.try_acquire().await.unwrap().is_some()
    })
    .await;
}
