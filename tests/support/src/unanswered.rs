//! Locks that nobody holds, on a server that does not say so.

use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, LockErrorKind};

use crate::unique;

/// The time that a loaded machine may need beyond a limit.
const SLACK: Duration = Duration::from_millis(500);
/// The time that is promised beyond a limit. The best of some rounds shows it, whatever the machine
/// does.
const EXACTLY: Duration = Duration::from_millis(50);
const ROUNDS: usize = 4;
/// The time in which a server gets through much more than it can do at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for free locks, with timeouts from zero up, of a server that does not answer.
///
/// Nobody was seen to hold one, so each call fails as `ProviderUnavailable`, at its timeout. A call
/// that does not wait fails when an answer is overdue.
///
/// # Panics
///
/// If anything is otherwise.
pub async fn nobody_is_accused(
    what: &str,
    response_timeout: Duration,
    lock: impl Fn(&str) -> DistributedLock,
) {
    for millis in [0, 300, 1_500] {
        let timeout = Duration::from_millis(millis);
        let limit = match timeout.is_zero() {
            true => response_timeout,
            false => timeout,
        };
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let answer = lock(&unique()).acquire_for(timeout).await;
            let took = start.elapsed();
            let error = answer.expect_err("nothing was granted");
            let kind = error.kind();
            assert_eq!(
                kind,
                LockErrorKind::ProviderUnavailable,
                "{what}, {timeout:?}: {error}"
            );
            assert!(
                took < limit + SLACK,
                "{what}, {timeout:?}: after {took:?}: {error}"
            );
            best = best.min(took);
            if best <= limit + EXACTLY {
                break;
            }
        }
        assert!(best <= limit + EXACTLY, "{what}, {timeout:?}: {best:?}");
    }
}

/// Asks for many free locks at a time, most of them with a timeout that the server may be too slow
/// for. Nobody holds one, so each is granted, or fails as `ProviderUnavailable`. A few callers have
/// the time that it takes, and each of them is granted its lock.
///
/// # Panics
///
/// If anything is otherwise.
pub async fn nobody_is_accused_under_load(lock: impl Fn(&str) -> DistributedLock) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..2_000 {
        let lock = lock(&unique());
        // Among the others, whose requests are before theirs and behind.
        let is_patient = number % 100 == 50;
        tasks.spawn(async move {
            let timeout = match is_patient {
                true => PATIENCE,
                false => Duration::from_millis(300),
            };
            match lock.acquire_for(timeout).await {
                Ok(guard) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    drop(guard);
                }
                Err(error) => {
                    let kind = error.kind();
                    assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{error}");
                    assert!(!is_patient, "after {timeout:?}: {error}");
                }
            }
        });
    }
    tasks.join_all().await;
}
