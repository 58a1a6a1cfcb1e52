//! Pauses: of many processes at once, and between attempts to connect.

use std::time::Duration;

use crate::LockError;
use crate::clock::Timestamp;

/// Pauses between attempts: none before the first, then these, doubled from one to the other.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After an error that no repetition mends, such as a wrong password.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// When to try to connect again.
#[derive(Default)]
pub(crate) struct Attempts {
    /// Those that failed in a row.
    failures: u32,
    /// When the next one may be made, and why not yet.
    paused: Option<(Timestamp, LockError)>,
}

impl Attempts {
    /// How long the next one has to wait; the error of the last one, if it is not due soon.
    pub(crate) fn next(&self) -> Result<Duration, LockError> {
        match &self.paused {
            Some((until, error)) if until.remaining() > LONGEST_PAUSE => Err(error.clone()),
            Some((until, _)) => Ok(until.remaining()),
            None => Ok(Duration::ZERO),
        }
    }

    /// Whether the next one need not wait.
    #[cfg(feature = "postgres")]
    pub(crate) fn are_due(&self) -> bool {
        matches!(self.next(), Ok(Duration::ZERO))
    }

    /// The error of the last one, if that failed.
    #[cfg(feature = "redis")]
    pub(crate) fn last_error(&self) -> Option<&LockError> {
        self.paused.as_ref().map(|(_, error)| error)
    }

    /// One more was made.
    pub(crate) fn made<T>(&mut self, outcome: &Result<T, LockError>) {
        let Err(error) = outcome else {
            *self = Self::default();
            return;
        };
        let pause = if error.is_retryable() {
            let doubled = SHORTEST_PAUSE.saturating_mul(1 << self.failures.min(10));
            doubled.min(LONGEST_PAUSE)
        } else {
            PAUSE_AFTER_REFUSAL
        };
        self.failures = self.failures.saturating_add(1);
        self.paused = Some((Timestamp::now() + pause, error.clone()));
    }
}

/// The span, a quarter shorter or longer. Not random, but different in every process and moment,
/// which is all that is needed for waiters not to look at the same time.
pub(crate) fn jittered(span: Duration) -> Duration {
    let noise = Timestamp::now()
        .as_nanos()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        >> 32;
    let part = noise as f64 / f64::from(u32::MAX);
    span.mul_f64(0.75 + part / 2.0)
}
