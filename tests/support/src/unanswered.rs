//! Locks that nobody holds, on a server that does not say so.

use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, LockErrorKind};

use crate::unique;

/// What a loaded machine may need beyond a limit.
const SLACK: Duration = Duration::from_millis(500);

/// Asks for free locks, with timeouts from zero up, of a server that does not answer. Nobody was
/// seen to hold one, so each call fails as `ProviderUnavailable`, and at its timeout; one that does
/// not wait, when an answer is overdue.
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
        let start = Instant::now();
        let answer = lock(&unique()).acquire_for(timeout).await;
        let took = start.elapsed();
        let error = answer.err().expect("nothing was granted");
        let kind = error.kind();
        assert_eq!(
            kind,
            LockErrorKind::ProviderUnavailable,
            "{what}, {timeout:?}: {error}"
        );
        let limit = if timeout.is_zero() {
            response_timeout
        } else {
            timeout
        };
        assert!(
            took < limit + SLACK,
            "{what}, {timeout:?}: after {took:?}: {error}"
        );
    }
}
