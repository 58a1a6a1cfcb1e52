//! The order of what the timekeeper looks at: leases that are due or end, and what is unsettled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use once_cell::sync::Lazy;
use tokio::sync::Notify;

use super::Lease;
use crate::clock::Timestamp;
#[cfg(feature = "redis")]
use crate::provider::LockSpace;

/// How often the timekeeper looks at each [`Unsettled`].
pub(super) const LOOKS_AT_UNSETTLED_EVERY: Duration = Duration::from_millis(100);

/// What the timekeeper looks at ten times a second until it is settled.
pub(crate) trait Unsettled: Send + Sync {
    /// Acts on what has become of it. False if there is no need to look again.
    fn look(self: Arc<Self>, now: Timestamp) -> bool;
}

/// The leases in the order in which they are looked at: by time and, for equal times, by address.
#[derive(Default)]
pub(super) struct Schedule(Mutex<BTreeMap<(u64, usize), Arc<Lease>>>);

pub(super) static SCHEDULE: Lazy<Schedule> = Lazy::new(Schedule::default);
static UNSETTLED: Mutex<Vec<Weak<dyn Unsettled>>> = Mutex::new(Vec::new());
/// When the timekeeper looks again by itself, as a `Timestamp`. To wake it costs more than all else
/// here, so it is not woken if that is soon enough.
pub(super) static LOOKS_AT: AtomicU64 = AtomicU64::new(u64::MAX);
/// Wakes the timekeeper before [`LOOKS_AT`].
pub(super) static EARLIER: Lazy<Notify> = Lazy::new(Notify::new);

/// Wakes the timekeeper if it would look later than at this moment.
fn look_by(at: u64) {
    if at < LOOKS_AT.load(Ordering::SeqCst) {
        EARLIER.notify_one();
    }
}

pub(super) fn unsettled() -> MutexGuard<'static, Vec<Weak<dyn Unsettled>>> {
    UNSETTLED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds what the timekeeper looks at until it is settled.
pub(super) fn look_at(one: Weak<dyn Unsettled>) {
    let mut unsettled = unsettled();
    unsettled.push(one);
    let is_first = unsettled.len() == 1;
    drop(unsettled);
    if is_first {
        look_by((Timestamp::now() + LOOKS_AT_UNSETTLED_EVERY).as_nanos());
    }
}

/// Sets when the timekeeper looks at the lease next, in place of the moment that was set before.
pub(crate) fn watch(lease: &Arc<Lease>, at: Timestamp) {
    SCHEDULE.insert(lease, at, true);
    look_by(at.as_nanos());
}

/// Takes the lease out of the schedule. It must be marked as ended before, so that no other thread
/// puts it back.
fn unwatch(lease: &Lease) {
    let mut schedule = SCHEDULE.lock();
    let key = (
        lease.scheduled_at.load(Ordering::Relaxed),
        std::ptr::from_ref(lease).addr(),
    );
    let removed = schedule.remove(&key);
    drop(schedule);
    drop(removed);
}

/// Tells whether the schedule has leases of this lock space.
#[cfg(feature = "redis")]
pub(crate) fn watches_any(space: LockSpace) -> bool {
    let schedule = SCHEDULE.lock();
    schedule.values().any(|lease| lease.is_in(space))
}

/// Renews all leases of this lock space now, together. It is for a server that may have forgotten
/// them.
#[cfg(feature = "redis")]
pub(crate) fn renew_all(space: LockSpace) {
    let schedule = SCHEDULE.lock();
    let leases = schedule.values().filter(|lease| lease.is_in(space));
    let leases: Vec<_> = leases.cloned().collect();
    drop(schedule);
    let now = Timestamp::now();
    for lease in leases {
        watch(&lease, lease.plan_renewal(now));
    }
}

impl Lease {
    /// Notes that the caller has the lease now. False if it was lost before that.
    pub(crate) fn take(self: &Arc<Self>) -> bool {
        if self.plan.take() {
            watch(self, self.next_look());
        }
        !self.is_lost()
    }

    /// Allows renewals again, after [`pause_renewals`](Self::pause_renewals).
    pub(crate) fn resume_renewals(self: &Arc<Self>) {
        self.plan.resume();
        watch(self, self.next_look());
    }

    /// Ends renewals: the lease is being released, passed on, or was lost.
    pub(crate) fn end(&self) {
        let _ = self.ended.set(());
        unwatch(self);
    }
}

fn address(lease: &Arc<Lease>) -> usize {
    Arc::as_ptr(lease).addr()
}

impl Schedule {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, usize), Arc<Lease>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the first lease is to be looked at.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.lock()
            .first_key_value()
            .map(|(&(at, _), _)| Timestamp::from_nanos(at))
    }

    /// Sets when to look at the lease. A moment that another thread has set since the lease was
    /// taken out stays, unless this one `replaces` it.
    pub(super) fn insert(&self, lease: &Arc<Lease>, at: Timestamp, replaces: bool) {
        let mut schedule = self.lock();
        let set = lease.scheduled_at.load(Ordering::Relaxed);
        if lease.has_ended() || (set != 0 && !replaces) {
            return;
        }
        schedule.remove(&(set, address(lease)));
        lease.scheduled_at.store(at.as_nanos(), Ordering::Relaxed);
        schedule.insert((at.as_nanos(), address(lease)), Arc::clone(lease));
    }

    /// Takes out the first lease whose time has come, or comes so soon that its renewal may be done
    /// now. Returns also the moment by which a renewal counts as due.
    pub(super) fn take_due(&self, now: Timestamp) -> Option<(Arc<Lease>, Timestamp)> {
        let mut schedule = self.lock();
        let entry = schedule.first_entry()?;
        let at = Timestamp::from_nanos(entry.key().0);
        let due_by = now + entry.get().slack();
        if at > due_by {
            return None;
        }
        let lease = entry.remove();
        lease.scheduled_at.store(0, Ordering::Relaxed);
        Some((lease, due_by))
    }
}
