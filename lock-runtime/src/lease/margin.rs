//! How long a lease is known to be valid: its margin, and its deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;

/// The bit of the deadline that says that the deadline was seen to have passed. It costs the
/// deadline one nanosecond of precision.
const OBSERVED: u64 = 1;
/// The deadline of a grant that has no lease.
const NEVER: u64 = Timestamp::FAR_FUTURE.as_nanos() & !OBSERVED;

/// Returns the part of a lease that the holder does not count on: 1 % and 2 ms. The clocks of two
/// machines may drift, and a server rounds to its own ticks.
///
/// `docs/guarantees.md` states these numbers, and the tests in `tests/runtime/keeper.rs` hold them.
pub(super) fn margin(lease: Duration) -> Duration {
    lease / 100 + Duration::from_millis(2)
}

fn valid_until(sent_at: Timestamp, lease: Duration) -> Timestamp {
    sent_at + lease.saturating_sub(margin(lease))
}

/// The deadline up to which a grant is known to be valid. Renewals move it, until it has passed.
pub(super) struct Validity {
    /// The deadline, as a `Timestamp`, and [`OBSERVED`].
    deadline: AtomicU64,
}

fn is_observed(deadline: u64) -> bool {
    deadline & OBSERVED != 0
}

impl Validity {
    /// Returns the validity of a lease whose request was sent at `sent_at`.
    pub(super) fn of_lease(sent_at: Timestamp, lease: Duration) -> Self {
        let deadline = valid_until(sent_at, lease).as_nanos() & !OBSERVED;
        Self {
            deadline: AtomicU64::new(deadline),
        }
    }

    /// Returns the validity of a grant that has no lease.
    pub(super) fn without_end() -> Self {
        Self {
            deadline: AtomicU64::new(NEVER),
        }
    }

    /// Tells whether there is a deadline.
    #[inline]
    pub(super) fn is_limited(&self) -> bool {
        self.deadline.load(Ordering::Relaxed) != NEVER
    }

    #[inline]
    pub(super) fn deadline(&self) -> Timestamp {
        Timestamp::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// Extends the validity by a renewal whose request was sent at `sent_at` or later. Does nothing
    /// if the deadline has passed.
    pub(super) fn extend(&self, sent_at: Timestamp, lease: Duration) {
        // A provider may answer the end of the validity by mistake, which lies far ahead.
        let sent_at = sent_at.min(Timestamp::now());
        let deadline = valid_until(sent_at, lease).as_nanos() & !OBSERVED;
        // A loss is for good, and another thread may have seen it already.
        let _ = self
            .deadline
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |current| {
                let is_over = is_observed(current) || Timestamp::from_nanos(current).has_passed();
                (!is_over).then_some(current.max(deadline))
            });
    }

    /// Tells whether the deadline has passed. Once true, it stays true.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        loop {
            let deadline = self.deadline.load(Ordering::Acquire);
            if is_observed(deadline) {
                return true;
            }
            if deadline == NEVER || !Timestamp::from_nanos(deadline).has_passed() {
                return false;
            }
            // Marked, so that a renewal that succeeds from now on finds that it is too late. A
            // renewal that was quicker counts.
            let seen = deadline | OBSERVED;
            let _ =
                self.deadline
                    .compare_exchange(deadline, seen, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_counts_only_before_the_deadline() {
        let lease = Duration::from_secs(60);
        let long = Validity::of_lease(Timestamp::now(), lease);
        let first = long.deadline();
        long.extend(Timestamp::now() + lease, lease);
        assert!(long.deadline() > first && !long.is_over());

        let brief = Duration::from_millis(10);
        let short = Validity::of_lease(Timestamp::now(), brief);
        let first = short.deadline();
        std::thread::sleep(first.remaining());
        short.extend(Timestamp::now() + lease, brief);
        assert_eq!(short.deadline(), first, "though no thread had looked");
        assert!(short.is_over());
    }

    /// The renewal looks at the clock a moment before another thread sees that the deadline has
    /// passed.
    #[test]
    fn a_deadline_that_was_seen_to_pass_stays_passed() {
        let lease = Duration::from_millis(10);
        let validity = Validity::of_lease(Timestamp::now(), lease);
        std::thread::sleep(validity.deadline().remaining());
        assert!(validity.is_over());
        assert!(is_observed(validity.deadline.load(Ordering::Relaxed)));
        let later = (Timestamp::now() + Duration::from_secs(60)).as_nanos() | OBSERVED;
        validity.deadline.store(later, Ordering::Relaxed);
        validity.extend(Timestamp::now() + Duration::from_secs(120), lease);
        assert_eq!(validity.deadline.load(Ordering::Relaxed), later);
        assert!(validity.is_over());
    }
}
