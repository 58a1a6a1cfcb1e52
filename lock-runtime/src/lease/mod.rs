//! `Lease`: a provider's grant while this process has it.
//!
//! `margin` says how long a lease is valid, `plan` when it is renewed. `schedule` keeps all leases
//! in order of time, `timekeeper` looks at them when their time has come, and `renewal` renews
//! them.

mod margin;
mod plan;
pub(crate) mod renewal;
pub(crate) mod schedule;
pub(crate) mod timekeeper;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use self::margin::{Validity, margin};
use self::plan::RenewalPlan;
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::future::select;
#[cfg(feature = "redis")]
use crate::provider::LockSpace;
use crate::provider::{Grant, Holder, LockMode, LossListener, LossReporter};
use crate::signal::Signal;
use crate::source::Source;
use crate::telemetry::spans;

/// What a lease belongs to: a slot of the gate. It goes on without the lease when that is lost.
pub(crate) trait LeaseOwner: Send + Sync {
    /// Goes on without the lease, which was lost. Called at most once for each lease.
    fn lease_lost(self: Arc<Self>, lease: &Lease);
}

/// A grant of a provider, from its arrival to its end.
pub(crate) struct Lease {
    grant: Arc<Grant>,
    /// The lease that was asked for. A waiter that asks for hardly less may take this one over.
    lease_asked: Duration,
    /// The provider that made the grant.
    source: Arc<Source>,
    owner: Arc<dyn LeaseOwner>,
    validity: Validity,
    plan: RenewalPlan,
    /// When the timekeeper looks at the lease again, as a `Timestamp`; zero if never. Only the
    /// schedule writes this.
    scheduled_at: AtomicU64,
    ended: OnceLock<()>,
    /// If set, the lock is kept on the server after its loss, so that other processes stay away:
    /// until the guard is gone, but no longer than to this moment.
    retain_until: OnceLock<Timestamp>,
    /// The ticket of the guard that has the lease now; zero if none has.
    holder: AtomicU64,
    /// Notified when the guard is gone, and so is the body that ran under it.
    guard_gone: Notify,
    /// Whether the last renewal failed.
    failing: AtomicBool,
    /// Whether the provider may be putting another grant in this one's place.
    upgrading: AtomicBool,
    /// Whether the loss has been logged.
    told: AtomicBool,
}

/// Renewals that are due within this part of a lease are done together with those that are due now,
/// in one request.
const TOGETHER: u32 = 30;

/// How long a body may take to be dropped when the process shuts its locks down, or `max_hold` has
/// passed.
const GRACE: Duration = Duration::from_secs(1);

const EXPIRED: &str = "its lease ended before it could be renewed";

impl Lease {
    pub(crate) fn new(
        grant: Grant,
        lease_asked: Duration,
        source: &Arc<Source>,
        owner: Arc<dyn LeaseOwner>,
    ) -> Arc<Self> {
        let validity = if source.capabilities().lease.is_some() {
            Validity::of_lease(grant.valid_from(), grant.lease())
        } else {
            Validity::without_end()
        };
        Arc::new(Self {
            grant: Arc::new(grant),
            lease_asked,
            source: Arc::clone(source),
            owner,
            validity,
            plan: RenewalPlan::new(),
            scheduled_at: AtomicU64::new(0),
            ended: OnceLock::new(),
            retain_until: OnceLock::new(),
            holder: AtomicU64::new(0),
            guard_gone: Notify::new(),
            failing: AtomicBool::new(false),
            upgrading: AtomicBool::new(false),
            told: AtomicBool::new(false),
        })
    }

    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(crate) fn shared_grant(&self) -> Arc<Grant> {
        Arc::clone(&self.grant)
    }

    /// Returns the lease that was asked for.
    pub(crate) fn lease_asked(&self) -> Duration {
        self.lease_asked
    }

    /// Notes that the provider is asked to put a writer's grant in the place of this one. Until
    /// that is answered, a renewal that finds the owner gone says nothing.
    pub(crate) fn upgrade_begins(&self) {
        self.upgrading.store(true, Ordering::Relaxed);
    }

    /// Notes that the provider has answered that.
    pub(crate) fn upgrade_ended(&self) {
        self.upgrading.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_upgrading(&self) -> bool {
        self.upgrading.load(Ordering::Relaxed)
    }

    /// Describes this process as the holder of this grant.
    pub(crate) fn holder(&self) -> Holder {
        let holder = Holder::here()
            .with_mode(self.grant.mode())
            .with_since(self.grant.valid_from().to_system_time());
        let holder = match self.grant.mode() {
            LockMode::Permits { take, .. } => holder.with_permits(take.get()),
            _ => holder,
        };
        match self.has_lease() {
            true => holder.with_expires_in(self.deadline().remaining()),
            false => holder,
        }
    }

    /// Returns the provider that made the grant.
    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Tells whether the lock belongs to this lock space.
    #[cfg(feature = "redis")]
    pub(crate) fn is_in(&self, space: LockSpace) -> bool {
        self.source.ask().is_ok_and(|facts| facts.space == space)
    }

    /// Tells whether this provider, or a clone of it, made the grant.
    pub(crate) fn is_of(&self, source: &Source) -> bool {
        self.source().is_like(source)
    }

    /// Tells whether a waiter that asks this provider for this lease may take this one over. `None`
    /// stands for the provider's default.
    pub(crate) fn serves(&self, source: &Source, lease: Option<Duration>) -> bool {
        let default = source.capabilities().lease;
        let enough = match lease.or(default) {
            Some(lease) if self.has_lease() => Self::may_serve(self.lease_asked, lease),
            _ => true,
        };
        enough && self.is_of(source)
    }

    /// Tells whether a waiter that asked for `asked` may have a lease of length `lease`: one that
    /// is no shorter, and at most a quarter longer. The lock of a process that dies stays for the
    /// rest of its lease.
    pub(crate) fn may_serve(lease: Duration, asked: Duration) -> bool {
        asked <= lease && lease <= asked + asked / 4
    }

    /// Tells whether the grant ends unless it is renewed.
    pub(crate) fn has_lease(&self) -> bool {
        self.validity.is_limited()
    }

    pub(crate) fn renewal_interval(&self) -> Duration {
        self.grant.lease() / 3
    }

    /// Plans the next renewal for this moment, or a little earlier together with others. Returns
    /// when to look at the lease.
    pub(crate) fn plan_renewal(&self, at: Timestamp) -> Timestamp {
        self.plan.renew_at(at);
        at.min(self.deadline())
    }

    /// Plans another try for this moment, and no earlier. Returns when to look at the lease.
    pub(crate) fn plan_retry(&self, at: Timestamp) -> Timestamp {
        self.plan.renew_not_before(at);
        at.min(self.deadline())
    }

    /// Returns how much earlier than scheduled the timekeeper may look at the lease.
    pub(crate) fn slack(&self) -> Duration {
        let scheduled = self.scheduled_at.load(Ordering::Relaxed);
        if self.plan.may_be_early() && scheduled < self.deadline().as_nanos() {
            self.grant.lease() / TOGETHER
        } else {
            Duration::ZERO
        }
    }

    /// Tells whether a renewal is due by `by`. Answers true once for each renewal.
    pub(crate) fn take_renewal(&self, now: Timestamp, by: Timestamp) -> bool {
        self.plan.take_due(now, by)
    }

    /// Returns the moment up to which the lock is known to be held.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.validity.deadline()
    }

    /// Extends the lease by a renewal that succeeded, and whose request was sent at `sent_at` or
    /// later.
    pub(crate) fn extend(&self, sent_at: Timestamp) {
        self.validity.extend(sent_at, self.grant.lease());
    }

    /// Tells whether the lock is no longer known to be held: the deadline has passed, or there is
    /// other evidence. Once true, it stays true.
    pub(crate) fn is_lost(&self) -> bool {
        self.signal().get().is_some() || self.validity.is_over()
    }

    /// Returns the signal that a loss sets.
    pub(crate) fn signal(&self) -> &Signal<LockError> {
        self.grant.loss_reporter().signal()
    }

    pub(crate) fn loss_reporter(&self) -> LossReporter {
        self.grant.loss_reporter().clone()
    }

    /// Reports the loss, and why.
    pub(crate) fn lose(&self, why: &str) {
        self.grant.loss_reporter().report(why);
    }

    /// Reports the loss of a lease whose deadline has passed. The lock is kept on the server until
    /// the server's own deadline, which comes a little later.
    pub(crate) fn expire(&self) {
        let _ = self.retain_until.set(self.server_deadline());
        self.lose(EXPIRED);
    }

    /// Reports the loss, because the process gives its locks back. A body has [`GRACE`] to be
    /// dropped.
    pub(crate) fn shut_down(&self) {
        let _ = self
            .retain_until
            .set((Timestamp::now() + GRACE).min(self.server_deadline()));
        self.lose("the process shut its locks down");
    }

    /// Stops renewing one second after `end`. A body that is still polled is dropped at `end` by
    /// its caller; this covers one that is never polled again.
    pub(crate) fn renew_until(&self, end: Timestamp) {
        self.plan.stop_at(end + GRACE);
    }

    /// Returns when the server ends the lease at the latest, unless it is renewed.
    pub(crate) fn server_deadline(&self) -> Timestamp {
        let lease = self.grant.lease();
        self.deadline() + margin(lease) + self.grant.server_lease().saturating_sub(lease)
    }

    /// Notes that the guard of this ticket has the lease from now on.
    pub(crate) fn passed_to(&self, ticket: u64) {
        self.holder.store(ticket, Ordering::Relaxed);
        self.plan.pass_on();
    }

    /// Notes that no guard has the lease. What the last guard does says nothing about the next.
    pub(crate) fn vacate(&self) {
        self.holder.store(0, Ordering::Relaxed);
    }

    /// Stops renewals, until [`resume_renewals`](Self::resume_renewals).
    pub(crate) fn pause_renewals(&self) {
        self.plan.pause();
    }

    /// Returns when to look at the lease next.
    fn next_look(&self) -> Timestamp {
        self.plan.next().min(self.deadline())
    }

    /// Notes that the guard of this ticket is being dropped or released. True if the lock is kept
    /// on the server for its sake.
    ///
    /// A guard that has passed the lock on is ignored: it says nothing about the next holder.
    pub(crate) fn guard_dropped(&self, ticket: u64) -> bool {
        let had_it = self.holder.load(Ordering::Relaxed) == ticket;
        if had_it {
            self.guard_gone.notify_one();
        }
        had_it && self.is_retained()
    }

    /// Notes that no body runs under the lease.
    pub(crate) fn leave(&self) {
        self.guard_gone.notify_one();
    }

    /// Tells whether the lock is kept on the server although it is lost.
    pub(crate) fn is_retained(&self) -> bool {
        self.retain_until.get().is_some()
    }

    /// Waits until the lock need not be kept on the server any more.
    pub(crate) async fn wait_until_guard_gone(&self) {
        if let Some(until) = self.retain_until.get() {
            select(
                self.guard_gone.notified(),
                tokio::time::sleep(until.remaining()),
            )
            .await;
        }
    }

    /// Reports the loss with this error.
    pub(crate) fn lose_with(&self, error: LockError) {
        self.grant.loss_reporter().report_error(error);
    }

    /// Returns the error that says how the lock was lost.
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

    /// Notes whether a renewal failed. True if this one failed and the one before did not.
    pub(crate) fn renewal_failed(&self, failed: bool) -> bool {
        !self.failing.swap(failed, Ordering::Relaxed) && failed
    }

    /// Tells whether the lease was released, passed on or lost.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }
}

impl LossListener for Lease {
    /// Lets the owner go on without the lease. The lock is kept on the server until the body has
    /// ended, or has had [`GRACE`] to end.
    fn lost(&self) {
        let _ = self
            .retain_until
            .set((Timestamp::now() + GRACE).min(self.server_deadline()));
        Arc::clone(&self.owner).lease_lost(self);
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::provider::AcquireRequest;
    use crate::testing::TestProvider;

    /// An owner that goes on without its lease at once.
    struct Unconcerned;

    impl LeaseOwner for Unconcerned {
        fn lease_lost(self: Arc<Self>, _: &Lease) {}
    }

    fn lasting(lease: Duration) -> Arc<Lease> {
        let source = Source::new(Arc::new(TestProvider::new()));
        let (request, _) = AcquireRequest::new("order", lease, true).unwrap();
        let grant = Grant::new(&request, Timestamp::now());
        Lease::new(grant, lease, &source, Arc::new(Unconcerned))
    }

    /// A guard that went before its `min_hold` was over says nothing about the next holder.
    #[tokio::test]
    async fn a_guard_that_is_gone_ends_no_wait_for_the_next() {
        let lease = lasting(Duration::from_secs(60));
        lease.passed_to(1);
        lease.vacate();
        lease.shut_down();
        lease.guard_dropped(1);
        let gone = tokio::time::timeout(Duration::from_millis(20), lease.wait_until_guard_gone());
        assert!(gone.await.is_err(), "the next holder's guard is not gone");
        lease.leave();
        lease.wait_until_guard_gone().await;
    }
}
