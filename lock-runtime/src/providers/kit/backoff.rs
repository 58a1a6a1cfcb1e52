//! Pauses: of many processes at once, between attempts, and between attempts to connect.

use std::time::Duration;

use crate::LockError;
use crate::clock::Timestamp;

/// The pauses between attempts to connect: none before the first, then these, doubled.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause after an error that no repetition mends, such as a wrong password.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// Doubles a pause so many times, but makes it no longer than `longest`.
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

/// Pauses of which each is twice as long as the one before, up to the longest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
        }
    }

    /// Returns the pause to make now.
    pub(crate) fn advance(&mut self) -> Duration {
        let pause = self.next;
        self.next = doubled(pause, 1, self.longest);
        pause
    }

    /// Makes the next pause at least so long, whatever the longest is.
    pub(crate) fn at_least(&mut self, pause: Duration) {
        self.next = self.next.max(pause);
    }
}

/// When to try to connect again.
#[derive(Default)]
pub(crate) struct ConnectBackoff {
    /// How many attempts in a row have failed.
    failures: u32,
    /// When the next attempt may be made, and why not yet.
    paused: Option<(Timestamp, LockError)>,
}

impl ConnectBackoff {
    /// Returns how long the next attempt has to wait.
    ///
    /// # Errors
    ///
    /// That of the last attempt, if the next one is not due soon.
    pub(crate) fn delay(&self) -> Result<Duration, LockError> {
        match &self.paused {
            Some((until, error)) if until.remaining() > LONGEST_PAUSE => Err(error.clone()),
            Some((until, _)) => Ok(until.remaining()),
            None => Ok(Duration::ZERO),
        }
    }

    /// Says whether the next attempt need not wait.
    pub(crate) fn is_due(&self) -> bool {
        matches!(self.delay(), Ok(Duration::ZERO))
    }

    /// Returns the error of the last attempt, if that failed.
    pub(crate) fn last_error(&self) -> Option<&LockError> {
        self.paused.as_ref().map(|(_, error)| error)
    }

    /// Takes note of an attempt that was made.
    pub(crate) fn record<T>(&mut self, outcome: &Result<T, LockError>) {
        let Err(error) = outcome else {
            *self = Self::default();
            return;
        };
        let pause = if error.is_retryable() {
            doubled(SHORTEST_PAUSE, self.failures, LONGEST_PAUSE)
        } else {
            PAUSE_AFTER_REFUSAL
        };
        self.failures = self.failures.saturating_add(1);
        self.paused = Some((Timestamp::now() + pause, error.clone()));
    }
}

/// Makes the span a quarter shorter or longer, or anything between.
///
/// The noise is not random, but different in every process and moment, which is all that is needed
/// for waiters not to look at the same time.
pub(crate) fn jittered(span: Duration) -> Duration {
    let noise = Timestamp::now()
        .as_nanos()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        >> 32;
    let part = noise as f64 / f64::from(u32::MAX);
    span.mul_f64(0.75 + part / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LockErrorKind;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_millis(150));
        let mut pauses = Pauses::new(first, longest);
        let made = [pauses.advance(), pauses.advance(), pauses.advance()];
        assert_eq!(made, [first, first * 2, longest]);
        assert_eq!(doubled(first, u32::MAX, longest), longest);
    }

    #[test]
    fn a_refusal_is_answered_from_memory_and_a_failure_waits() {
        let mut backoff = ConnectBackoff::default();
        assert!(backoff.is_due());
        backoff.record::<()>(&Err(LockErrorKind::ProviderUnavailable.into()));
        assert!(backoff.delay().unwrap() <= SHORTEST_PAUSE);
        backoff.record::<()>(&Err(LockErrorKind::InvalidConfig.into()));
        let error = backoff.delay().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig);
        backoff.record(&Ok(()));
        assert!(backoff.is_due() && backoff.last_error().is_none());
    }
}
