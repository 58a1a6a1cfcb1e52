//! `Lease`: a provider's grant while this process has it, and how long it is known to be valid.
//!
//! When it is looked at and renewed is the business of its parts.

pub(crate) mod renewal;
pub(crate) mod schedule;
pub(crate) mod timekeeper;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::future::first_of;
#[cfg(feature = "redis")]
use crate::provider::LockSpace;
use crate::provider::{Grant, LossListener, LossReporter};
use crate::signal::Signal;
use crate::source::Source;
use crate::telemetry::spans;

/// Whoever has a lease, and goes on without it when it is lost.
pub(crate) trait LeaseOwner: Send + Sync {
    /// The lease was lost, for whatever reason. Called at most once a lease.
    fn lease_lost(self: Arc<Self>, lease: &Lease);
}

/// A grant of a provider, from its arrival to its end.
pub(crate) struct Lease {
    grant: Arc<Grant>,
    /// What was asked for; a waiter who asked for hardly less may take this lease over.
    lease_asked: Duration,
    /// Who made the grant.
    source: Arc<Source>,
    owner: Arc<dyn LeaseOwner>,
    /// The end of the validity, as a `Timestamp`, and [`OBSERVED`].
    deadline: AtomicU64,
    /// When the next renewal is due, as a `Timestamp`; far in the future while one is under way.
    next_renewal: AtomicU64,
    /// Whether that time is not to be brought forward.
    not_before: AtomicBool,
    /// When it is looked at again, as a `Timestamp`; zero if never. Only the schedule writes this.
    pub(crate) scheduled_at: AtomicU64,
    ended: OnceLock<()>,
    /// Set if the server should keep others away after the loss, until the guard is gone or this
    /// moment has come.
    retain_until: OnceLock<Timestamp>,
    /// The ticket of the guard that has it now.
    holder: AtomicU64,
    /// After this moment it is not renewed any more, as a `Timestamp`.
    renewed_until: AtomicU64,
    /// The guard is gone, and so is the body.
    guard_gone: Notify,
    /// Whether the caller has it: [`TAKEN`], [`UNTAKEN`] or [`UNRENEWED`].
    taken: AtomicU8,
    /// Whether the last renewal failed.
    failing: AtomicBool,
    /// Somebody has logged that it was lost.
    told: AtomicBool,
}

const TAKEN: u8 = 0;
/// It was given to a waiter who has not looked yet.
const UNTAKEN: u8 = 1;
/// And was due for a renewal since, which it did not get: nobody may be there to hold the lock.
const UNRENEWED: u8 = 2;

/// Renewals that are due within this part of a lease are done with those that are due now, in one
/// request.
const TOGETHER: u32 = 30;

/// How long a body may take to be dropped when the process shuts its locks down, or `max_hold` has
/// passed.
const GRACE: Duration = Duration::from_secs(1);

/// A part of the deadline: somebody has seen that it has passed. A nanosecond is no loss.
const OBSERVED: u64 = 1;
/// The deadline of what has no lease.
const NEVER: u64 = Timestamp::FAR_FUTURE.as_nanos() & !OBSERVED;

fn is_observed(deadline: u64) -> bool {
    deadline & OBSERVED != 0
}

const EXPIRED: &str = "its lease ended before it could be renewed";

/// The part of a lease that is not counted on: clocks of two machines may drift, and the server
/// rounds to its own ticks.
fn margin(lease: Duration) -> Duration {
    lease / 100 + Duration::from_millis(2)
}

impl Lease {
    pub(crate) fn new(
        grant: Grant,
        lease_asked: Duration,
        source: &Arc<Source>,
        owner: Arc<dyn LeaseOwner>,
    ) -> Arc<Self> {
        let deadline = if source.capabilities().lease.is_some() {
            valid_until(grant.valid_from(), grant.lease())
        } else {
            Timestamp::FAR_FUTURE
        };
        Arc::new(Self {
            grant: Arc::new(grant),
            lease_asked,
            source: Arc::clone(source),
            owner,
            deadline: AtomicU64::new(deadline.as_nanos() & !OBSERVED),
            next_renewal: AtomicU64::new(u64::MAX),
            not_before: AtomicBool::new(false),
            scheduled_at: AtomicU64::new(0),
            ended: OnceLock::new(),
            retain_until: OnceLock::new(),
            holder: AtomicU64::new(0),
            renewed_until: AtomicU64::new(u64::MAX),
            guard_gone: Notify::new(),
            taken: AtomicU8::new(TAKEN),
            failing: AtomicBool::new(false),
            told: AtomicBool::new(false),
        })
    }

    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(crate) fn shared_grant(&self) -> Arc<Grant> {
        Arc::clone(&self.grant)
    }

    /// Whoever made the grant.
    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Whether it is a lease of this lock space.
    #[cfg(feature = "redis")]
    pub(crate) fn is_in(&self, space: LockSpace) -> bool {
        self.source.ask().is_ok_and(|facts| facts.space == space)
    }

    /// Whether this source, or one like it, made the grant.
    pub(crate) fn is_of(&self, source: &Source) -> bool {
        self.source().is_like(source)
    }

    /// Whether a waiter who asks this source for this lease may have it.
    pub(crate) fn serves(&self, source: &Source, lease: Option<Duration>) -> bool {
        let default = source.capabilities().lease;
        let enough = match lease.or(default) {
            Some(lease) if self.has_lease() => Self::may_serve(self.lease_asked, lease),
            _ => true,
        };
        enough && self.is_of(source)
    }

    /// Whether a lease may be had by who asked for `asked`: it is no shorter, and not so much
    /// longer that the lock of a process that died would stay for long beyond it.
    pub(crate) fn may_serve(lease: Duration, asked: Duration) -> bool {
        asked <= lease && lease <= asked + asked / 4
    }

    pub(crate) fn has_lease(&self) -> bool {
        self.deadline.load(Ordering::Relaxed) != NEVER
    }

    pub(crate) fn renewal_interval(&self) -> Duration {
        self.grant.lease() / 3
    }

    /// Plans the next renewal for this time, or a little earlier together with others, and says
    /// when to look at it.
    pub(crate) fn plan_renewal(&self, at: Timestamp) -> Timestamp {
        self.not_before.store(false, Ordering::Relaxed);
        self.next_renewal.store(at.as_nanos(), Ordering::Relaxed);
        at.min(self.deadline())
    }

    /// Plans another try, no earlier than this.
    pub(crate) fn plan_retry(&self, at: Timestamp) -> Timestamp {
        let at = self.plan_renewal(at);
        self.not_before.store(true, Ordering::Relaxed);
        at
    }

    /// How much earlier than planned the keeper may look at it.
    pub(crate) fn slack(&self) -> Duration {
        let planned = self.scheduled_at.load(Ordering::Relaxed);
        if self.not_before.load(Ordering::Relaxed) || planned >= self.deadline().as_nanos() {
            Duration::ZERO
        } else {
            self.grant.lease() / TOGETHER
        }
    }

    /// Whether a renewal is due by then; answers true once a renewal.
    pub(crate) fn take_renewal(&self, now: Timestamp, by: Timestamp) -> bool {
        let due = self.next_renewal.load(Ordering::Relaxed) <= by.as_nanos();
        if !due || self.renewed_until.load(Ordering::Relaxed) <= now.as_nanos() {
            return false;
        }
        let unrenewed =
            self.taken
                .compare_exchange(UNTAKEN, UNRENEWED, Ordering::AcqRel, Ordering::Acquire);
        if unrenewed.is_ok() || unrenewed == Err(UNRENEWED) {
            return false;
        }
        self.next_renewal.store(u64::MAX, Ordering::Relaxed);
        true
    }

    pub(crate) fn deadline(&self) -> Timestamp {
        Timestamp::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// A renewal succeeded whose request was sent at `sent_at`, or later.
    pub(crate) fn extend(&self, sent_at: Timestamp) {
        // The end of the validity would be an easy mistake, and a far one.
        let sent_at = sent_at.min(Timestamp::now());
        let deadline = valid_until(sent_at, self.grant.lease()).as_nanos() & !OBSERVED;
        // A loss is for good, and somebody may have seen it already.
        let _ = self
            .deadline
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |current| {
                let is_over = is_observed(current) || Timestamp::from_nanos(current).has_passed();
                (!is_over).then_some(current.max(deadline))
            });
    }

    /// True at or after the deadline, and as soon as there is other evidence; and from then on.
    pub(crate) fn is_lost(&self) -> bool {
        if self.signal().get().is_some() {
            return true;
        }
        loop {
            let deadline = self.deadline.load(Ordering::Acquire);
            if is_observed(deadline) {
                return true;
            }
            if deadline == NEVER || !Timestamp::from_nanos(deadline).has_passed() {
                return false;
            }
            // A renewal that comes now must find that it is too late; one that was quicker counts.
            let seen = deadline | OBSERVED;
            let _ =
                self.deadline
                    .compare_exchange(deadline, seen, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Set by a loss.
    pub(crate) fn signal(&self) -> &Signal<LockError> {
        self.grant.loss_reporter().signal()
    }

    pub(crate) fn loss_reporter(&self) -> LossReporter {
        self.grant.loss_reporter().clone()
    }

    pub(crate) fn lose(&self, why: &str) {
        self.grant.loss_reporter().report(why);
    }

    /// The deadline has passed. The server's own comes a little later.
    pub(crate) fn expire(&self) {
        let _ = self.retain_until.set(self.server_deadline());
        self.lose(EXPIRED);
    }

    /// The process is giving its locks back. A body gets a moment to be dropped.
    pub(crate) fn shut_down(&self) {
        let _ = self
            .retain_until
            .set((Timestamp::now() + GRACE).min(self.server_deadline()));
        self.lose("the process shut its locks down");
    }

    /// The holder means to keep it no longer. Whoever polls the body drops it then; this is for
    /// bodies that nobody polls any more.
    pub(crate) fn renew_until(&self, end: Timestamp) {
        self.renewed_until
            .store((end + GRACE).as_nanos(), Ordering::Relaxed);
    }

    /// When the server ends it at the latest, unless it is renewed.
    pub(crate) fn server_deadline(&self) -> Timestamp {
        let lease = self.grant.lease();
        self.deadline() + margin(lease) + self.grant.server_lease().saturating_sub(lease)
    }

    /// The guard of this ticket has it from now on.
    pub(crate) fn passed_to(&self, ticket: u64) {
        self.holder.store(ticket, Ordering::Relaxed);
        let was_limited = self.renewed_until.swap(u64::MAX, Ordering::Relaxed) != u64::MAX;
        let was_unrenewed = self.taken.swap(UNTAKEN, Ordering::AcqRel) == UNRENEWED;
        // A renewal that was left out for the one before is still due.
        let is_due = || self.next_renewal.load(Ordering::Relaxed) <= Timestamp::now().as_nanos();
        if was_unrenewed || (was_limited && is_due()) {
            self.taken.store(UNRENEWED, Ordering::Release);
        }
    }

    /// No guard has it: what the last one does says nothing about the next.
    pub(crate) fn vacate(&self) {
        self.holder.store(0, Ordering::Relaxed);
    }

    /// Renews it no more, until [`resume_renewals`](Self::resume_renewals).
    pub(crate) fn pause_renewals(&self) {
        self.renewed_until.store(0, Ordering::Relaxed);
    }

    /// When it is to be looked at next.
    fn next_look(&self) -> Timestamp {
        let next_renewal = Timestamp::from_nanos(self.next_renewal.load(Ordering::Relaxed));
        next_renewal.min(self.deadline())
    }

    /// The guard of this ticket is being dropped or released; one that has passed the lock on
    /// says nothing about the one that has it now.
    /// True if others were kept away for its sake.
    pub(crate) fn guard_dropped(&self, ticket: u64) -> bool {
        let had_it = self.holder.load(Ordering::Relaxed) == ticket;
        if had_it {
            self.guard_gone.notify_one();
        }
        had_it && self.is_retained()
    }

    /// No body runs under it.
    pub(crate) fn leave(&self) {
        self.guard_gone.notify_one();
    }

    /// Whether the server is to keep others away although the lock is lost.
    pub(crate) fn is_retained(&self) -> bool {
        self.retain_until.get().is_some()
    }

    /// Resolves when the server need not keep others away any more.
    pub(crate) async fn wait_until_guard_gone(&self) {
        if let Some(until) = self.retain_until.get() {
            first_of(
                self.guard_gone.notified(),
                tokio::time::sleep(until.remaining()),
            )
            .await;
        }
    }

    pub(crate) fn lose_with(&self, error: LockError) {
        self.grant.loss_reporter().report_error(error);
    }

    /// The error that says how it was lost.
    pub(crate) fn loss(&self) -> LockError {
        let error = match self.signal().get() {
            Some(error) => error.clone(),
            None => LockError::new(LockErrorKind::Lost).with_detail(EXPIRED),
        };
        error.with_name(self.grant.name().clone())
    }

    /// Logs the loss of a held lock, once.
    pub(crate) fn tell_of_loss(&self, template: &'static str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            spans::lost(&self.loss(), self.source().name(), template);
        }
    }

    /// Notes how a renewal went; whether it is the first that failed.
    pub(crate) fn renewal_failed(&self, failed: bool) -> bool {
        !self.failing.swap(failed, Ordering::Relaxed) && failed
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }
}

impl LossListener for Lease {
    /// Lets the owner go on without it, when the body has ended or has had time to.
    fn lost(&self) {
        let _ = self
            .retain_until
            .set((Timestamp::now() + GRACE).min(self.server_deadline()));
        Arc::clone(&self.owner).lease_lost(self);
    }
}

fn valid_until(sent_at: Timestamp, lease: Duration) -> Timestamp {
    sent_at + lease.saturating_sub(margin(lease))
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::provider::AcquireRequest;
    use crate::testing::TestProvider;

    /// An owner that goes on without its lease at once.
    struct Nobody;

    impl LeaseOwner for Nobody {
        fn lease_lost(self: Arc<Self>, _: &Lease) {}
    }

    fn lasting(lease: Duration) -> Arc<Lease> {
        let source = Source::new(Arc::new(TestProvider::new()));
        let (request, _) = AcquireRequest::new("order", lease, true).unwrap();
        let grant = Grant::new(&request, Timestamp::now());
        Lease::new(grant, lease, &source, Arc::new(Nobody))
    }

    #[test]
    fn a_renewal_counts_only_before_the_deadline() {
        let lease = Duration::from_secs(60);
        let long = lasting(lease);
        let first = long.deadline();
        long.extend(Timestamp::now() + lease);
        assert!(long.deadline() > first && !long.is_lost());

        let short = lasting(Duration::from_millis(10));
        let first = short.deadline();
        std::thread::sleep(first.remaining());
        short.extend(Timestamp::now() + lease);
        assert_eq!(short.deadline(), first, "though nobody had looked");
        assert!(short.is_lost());
    }

    /// As if the renewal had looked at the clock a moment before somebody else did.
    #[test]
    fn what_was_seen_to_be_lost_stays_so() {
        let lease = lasting(Duration::from_millis(10));
        std::thread::sleep(lease.deadline().remaining());
        assert!(lease.is_lost());
        assert!(is_observed(lease.deadline.load(Ordering::Relaxed)));
        let later = (Timestamp::now() + Duration::from_secs(60)).as_nanos() | OBSERVED;
        lease.deadline.store(later, Ordering::Relaxed);
        lease.extend(Timestamp::now() + Duration::from_secs(120));
        assert_eq!(lease.deadline.load(Ordering::Relaxed), later);
        assert!(lease.is_lost());
    }

    /// A renewal that was left out, since nobody had taken the grant, is due for the next holder.
    #[test]
    fn a_renewal_that_is_due_stays_due_when_the_lock_is_passed_on() {
        let lease = lasting(Duration::from_secs(60));
        lease.passed_to(1);
        let due = lease.plan_renewal(Timestamp::now());
        assert!(!lease.take_renewal(Timestamp::now(), due), "nobody has it");
        assert_eq!(lease.taken.load(Ordering::Relaxed), UNRENEWED);
        lease.passed_to(2);
        assert_eq!(lease.taken.load(Ordering::Relaxed), UNRENEWED);
        assert!(lease.take());
        assert!(
            lease.take_renewal(Timestamp::now(), due),
            "now somebody has"
        );
    }

    /// The guard that went before its `min_hold` was over says nothing about who comes after it.
    #[tokio::test]
    async fn a_guard_that_is_gone_ends_no_wait_for_the_next() {
        let lease = lasting(Duration::from_secs(60));
        lease.passed_to(1);
        lease.vacate();
        lease.shut_down();
        lease.guard_dropped(1);
        let gone = tokio::time::timeout(Duration::from_millis(20), lease.wait_until_guard_gone());
        assert!(gone.await.is_err(), "nobody has let go of it");
        lease.leave();
        lease.wait_until_guard_gone().await;
    }
}
