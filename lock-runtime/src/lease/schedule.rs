//! What is to be looked at, and when: leases that are due or end, and grants that nobody takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use once_cell::sync::Lazy;
use tokio::sync::Notify;

use super::{Lease, TAKEN, UNRENEWED};
use crate::clock::Timestamp;
#[cfg(feature = "redis")]
use crate::provider::LockSpace;

/// How often the [`Unsettled`] are looked at, while there are some.
pub(super) const LOOKS_AT_UNSETTLED_EVERY: Duration = Duration::from_millis(100);

/// What is looked at ten times a second until it is settled.
pub(crate) trait Unsettled: Send + Sync {
    /// Looks at it. False if there is no need to look again.
    fn look(self: Arc<Self>, now: Timestamp) -> bool;
}

/// When to look at which lease next, by time and, for equal times, by address.
#[derive(Default)]
pub(super) struct Schedule(Mutex<BTreeMap<(u64, usize), Arc<Lease>>>);

pub(super) static SCHEDULE: Lazy<Schedule> = Lazy::new(Schedule::default);
static UNSETTLED: Mutex<Vec<Weak<dyn Unsettled>>> = Mutex::new(Vec::new());
/// When the thread looks again by itself, as a `Timestamp`. Waking it costs more than all else
/// here, so it is left alone if that is soon enough.
pub(super) static LOOKS_AT: AtomicU64 = AtomicU64::new(u64::MAX);
/// There is something to look at before that.
pub(super) static EARLIER: Lazy<Notify> = Lazy::new(Notify::new);

/// Has the thread look at this time, if it would do so later.
fn look_by(at: u64) {
    if at < LOOKS_AT.load(Ordering::SeqCst) {
        EARLIER.notify_one();
    }
}

pub(super) fn unsettled() -> MutexGuard<'static, Vec<Weak<dyn Unsettled>>> {
    UNSETTLED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has this looked at until there is no need to.
pub(super) fn look_at(one: Weak<dyn Unsettled>) {
    let mut unsettled = unsettled();
    unsettled.push(one);
    let is_first = unsettled.len() == 1;
    drop(unsettled);
    if is_first {
        look_by((Timestamp::now() + LOOKS_AT_UNSETTLED_EVERY).as_nanos());
    }
}

/// Has the lease looked at at this time, and not at the time set before.
pub(crate) fn watch(lease: &Arc<Lease>, at: Timestamp) {
    SCHEDULE.insert(lease, at, true);
    look_by(at.as_nanos());
}

/// Has the lease looked at no more. To be called after it was marked as ended.
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

/// Whether leases of this lock space are watched.
#[cfg(feature = "redis")]
pub(crate) fn watches_any(space: LockSpace) -> bool {
    let schedule = SCHEDULE.lock();
    schedule.values().any(|lease| lease.is_in(space))
}

/// Renews all locks of this space now, together: nobody knows whether its server still has them.
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
    /// Says that the caller has it now. False if it ended before that.
    pub(crate) fn take(self: &Arc<Self>) -> bool {
        if self.taken.swap(TAKEN, Ordering::AcqRel) == UNRENEWED {
            // It is due.
            watch(self, self.next_look());
        }
        !self.is_lost()
    }

    /// Renews it again after [`pause_renewals`](Self::pause_renewals).
    pub(crate) fn resume_renewals(self: &Arc<Self>) {
        self.renewed_until.store(u64::MAX, Ordering::Relaxed);
        watch(self, self.next_look());
    }

    /// Says that it is not to be renewed any more: it is being released, passed on, or was lost.
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

    pub(super) fn first(&self) -> Option<Timestamp> {
        self.lock()
            .first_key_value()
            .map(|(&(at, _), _)| Timestamp::from_nanos(at))
    }

    /// Sets when to look at the lease. What another thread else has set since it was taken out stays,
    /// unless this one `replaces` it.
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

    /// Takes out the first lease whose time has come, or whose renewal may as well be done now; and by when
    /// that may be due.
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
