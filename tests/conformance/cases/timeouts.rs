//! An acquisition waits as long as it is told to, and says why it gives up.

use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockMode};
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

/// A waiter that queues behind one that gives up is served all the same.
pub(crate) async fn timed_out_waiter_stops_nobody(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    // What is out of several permits only the server can tell, which takes a moment.
    let short = match fixture.mode() {
        LockMode::Exclusive => SHORT,
        _ => 5 * SHORT,
    };
    let mut first = Box::pin(lock.acquire_for(short));
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

/// The holder is elsewhere, if the provider reaches as far, so that only the server can tell.
pub(crate) async fn a_timeout_is_exact(fixture: Shared) {
    let holder = match fixture.second_provider().await {
        Some(provider) => fixture.lock_on(provider, "lock"),
        None => fixture.lock("lock"),
    };
    let guard = holder.acquire().await.unwrap();
    let lock = fixture.lock("lock");
    // What a call needs once is not the timeout's.
    assert!(lock.try_acquire().await.unwrap().is_none());
    let (timeout, late) = (Duration::from_millis(300), Duration::from_millis(50));
    let mut soonest = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let error = lock.acquire_for(timeout).await.unwrap_err();
        let took = start.elapsed();
        assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
        assert!(took >= timeout, "{took:?}");
        soonest = soonest.min(took);
    }
    // The machine may be busy, but not each time.
    assert!(soonest < timeout + late, "{soonest:?}");
    guard.release().await.unwrap();
}

/// Free names are asked for under a load that the provider may be unable to carry within the
/// timeout.
pub(crate) async fn free_names_are_never_held_elsewhere(fixture: Shared) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..400 {
        let lock = fixture.lock(format!("name-{task}"));
        let timeout = if task % 4 == 0 { 0 } else { 50 };
        tasks.spawn(async move {
            match lock.acquire_for(Duration::from_millis(timeout)).await {
                Ok(guard) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    guard.release().await.unwrap();
                }
                Err(error) => {
                    assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
                }
            }
        });
    }
    tasks.join_all().await;
}

/// The lock stays taken after the body's end; when its time is over, the next one has it at once.
pub(crate) async fn min_hold_outlasts_the_guard(fixture: Shared) {
    let min_hold = Duration::from_secs(1);
    let lock = fixture.lock("job").min_hold(min_hold);
    let second = match fixture.second_provider().await {
        Some(provider) => fixture.lock_on(provider, "job"),
        None => fixture.lock("job"),
    };
    // From before the grant to after it.
    let asked = Instant::now();
    let guard = lock.acquire().await.unwrap();
    let granted = Instant::now();
    guard.release().await.unwrap();
    assert!(asked.elapsed() < min_hold, "the release does not wait");
    let contended = second.try_acquire().await.unwrap();
    assert!(
        contended.is_none() || asked.elapsed() >= min_hold,
        "it is kept"
    );
    drop(contended);
    let next = second
        .acquire_for(min_hold + fixture.bound())
        .await
        .unwrap();
    assert!(asked.elapsed() >= min_hold, "after {:?}", asked.elapsed());
    assert!(granted.elapsed() < min_hold + fixture.bound(), "at its end");
    next.release().await.unwrap();
}

/// The end of a body that has lasted longer than its `min_hold` frees the lock at once.
pub(crate) async fn a_body_may_outlast_its_min_hold(fixture: Shared) {
    let min_hold = Duration::from_millis(50);
    let lock = fixture.lock("long-job").min_hold(min_hold);
    for _ in 0..3 {
        let guard = lock.acquire_for(fixture.bound()).await.unwrap();
        tokio::time::sleep(min_hold * 2).await;
        guard.release().await.unwrap();
        let next = fixture.lock("long-job").try_acquire().await.unwrap();
        next.expect("it is free").release().await.unwrap();
    }
}
