//! When a lease is renewed next, and whether it may be.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::clock::Timestamp;

/// The caller has the lease.
const TAKEN: u8 = 0;
/// The lease was given to a waiter that has not been polled since.
const UNTAKEN: u8 = 1;
/// As [`UNTAKEN`], and a renewal was due since. It was left out, because the waiter may never come.
const UNRENEWED: u8 = 2;

/// When a lease is renewed next, and whether it may be.
pub(super) struct RenewalPlan {
    /// When the next renewal is due, as a `Timestamp`. Far in the future while one is under way.
    next: AtomicU64,
    /// Whether the next renewal must not be done together with earlier ones.
    not_before: AtomicBool,
    /// The moment after which the lease is not renewed any more, as a `Timestamp`.
    until: AtomicU64,
    /// Whether the caller has the lease: [`TAKEN`], [`UNTAKEN`] or [`UNRENEWED`].
    taken: AtomicU8,
}

impl RenewalPlan {
    pub(super) fn new() -> Self {
        Self {
            next: AtomicU64::new(u64::MAX),
            not_before: AtomicBool::new(false),
            until: AtomicU64::new(u64::MAX),
            taken: AtomicU8::new(TAKEN),
        }
    }

    /// Returns when the next renewal is due.
    #[inline]
    pub(super) fn next(&self) -> Timestamp {
        Timestamp::from_nanos(self.next.load(Ordering::Relaxed))
    }

    /// Plans the next renewal for this moment, or a little earlier together with others.
    pub(super) fn renew_at(&self, at: Timestamp) {
        self.not_before.store(false, Ordering::Relaxed);
        self.next.store(at.as_nanos(), Ordering::Relaxed);
    }

    /// Plans the next renewal for this moment, and no earlier.
    pub(super) fn renew_not_before(&self, at: Timestamp) {
        self.renew_at(at);
        self.not_before.store(true, Ordering::Relaxed);
    }

    /// Tells whether the next renewal may be done a little earlier than planned.
    pub(super) fn may_be_early(&self) -> bool {
        !self.not_before.load(Ordering::Relaxed)
    }

    /// Tells whether a renewal is due by `by`. Answers true once for each renewal.
    pub(super) fn take_due(&self, now: Timestamp, by: Timestamp) -> bool {
        let due = self.next.load(Ordering::Relaxed) <= by.as_nanos();
        if !due || self.until.load(Ordering::Relaxed) <= now.as_nanos() {
            return false;
        }
        let unrenewed =
            self.taken
                .compare_exchange(UNTAKEN, UNRENEWED, Ordering::AcqRel, Ordering::Acquire);
        if unrenewed.is_ok() || unrenewed == Err(UNRENEWED) {
            return false;
        }
        self.next.store(u64::MAX, Ordering::Relaxed);
        true
    }

    /// Starts anew for the next holder, which has not taken the lease yet.
    #[inline]
    pub(super) fn pass_on(&self) {
        let was_limited = self.until.swap(u64::MAX, Ordering::Relaxed) != u64::MAX;
        let was_unrenewed = self.taken.swap(UNTAKEN, Ordering::AcqRel) == UNRENEWED;
        // A renewal that was left out for the holder before is still due.
        let is_due = || self.next.load(Ordering::Relaxed) <= Timestamp::now().as_nanos();
        if was_unrenewed || (was_limited && is_due()) {
            self.taken.store(UNRENEWED, Ordering::Release);
        }
    }

    /// Notes that the caller has the lease now. True if a renewal was left out before that.
    #[inline]
    pub(super) fn take(&self) -> bool {
        self.taken.swap(TAKEN, Ordering::AcqRel) == UNRENEWED
    }

    /// Stops renewals at `end`.
    pub(super) fn stop_at(&self, end: Timestamp) {
        self.until.store(end.as_nanos(), Ordering::Relaxed);
    }

    /// Stops renewals, until [`resume`](Self::resume).
    pub(super) fn pause(&self) {
        self.stop_at(Timestamp::NONE);
    }

    /// Allows renewals again.
    pub(super) fn resume(&self) {
        self.stop_at(Timestamp::FAR_FUTURE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A renewal that was left out, because no caller had taken the grant, is due for the next
    /// holder.
    #[test]
    fn a_renewal_that_is_due_stays_due_when_the_lock_is_passed_on() {
        let plan = RenewalPlan::new();
        plan.pass_on();
        let due = Timestamp::now();
        plan.renew_at(due);
        assert!(!plan.take_due(Timestamp::now(), due), "no caller has it");
        assert_eq!(plan.taken.load(Ordering::Relaxed), UNRENEWED);
        plan.pass_on();
        assert_eq!(plan.taken.load(Ordering::Relaxed), UNRENEWED);
        assert!(plan.take(), "a renewal was left out");
        assert!(
            plan.take_due(Timestamp::now(), due),
            "now the next holder has it"
        );
    }
}
