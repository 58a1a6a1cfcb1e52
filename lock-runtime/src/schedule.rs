//! What is to be looked at, and when: leases that are due or end, and grants that nobody takes.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use once_cell::sync::Lazy;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::gate::Slot;
use crate::hold::Hold;
#[cfg(feature = "redis")]
use crate::provider::LockSpace;
use crate::race::first_of;
use crate::renewal;
use crate::wake::survive;

/// Tokio's timers do not count the time that the machine sleeps, so the clock that does is looked
/// at this often while there are leases.
const LOOKS_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether grants are taken and calls answered, while some are not.
const LOOKS_AT_SLOTS_EVERY: Duration = Duration::from_millis(100);

/// When to look at which hold next, by time and, for equal times, by address.
#[derive(Default)]
struct Schedule(Mutex<BTreeMap<(u64, usize), Arc<Hold>>>);

static SCHEDULE: Lazy<Schedule> = Lazy::new(Schedule::default);
/// Slots whose grant was given to a waiter who has not looked yet, or whose call has no answer.
static UNSETTLED: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());
/// When the thread looks again by itself, as a `Timestamp`. Waking it costs more than all else
/// here, so it is left alone if that is soon enough.
static LOOKS_AT: AtomicU64 = AtomicU64::new(u64::MAX);
/// There is something to look at before that.
static EARLIER: Lazy<Notify> = Lazy::new(Notify::new);

/// What the thread does that keeps time.
pub(crate) async fn keep() {
    let mut timer = pin!(tokio::time::sleep(LOOKS_EVERY));
    let mut looks_at_slots = None;
    let mut was_idle = false;
    loop {
        let earlier = EARLIER.notified();
        let now = Timestamp::now();
        if looks_at_slots.is_some_and(|at| at <= now) {
            looks_at_slots = None;
            look_at_slots(now);
        }
        if looks_at_slots.is_none() && !unsettled().is_empty() {
            looks_at_slots = Some(now + LOOKS_AT_SLOTS_EVERY);
        }
        look_at_leases(now);
        let first = SCHEDULE.first();
        // Once more after the last lease: where locks come and go, the next one need not wake it.
        let is_idle = first.is_none() && looks_at_slots.is_none();
        let next = match is_idle && was_idle {
            true => None,
            false => first
                .into_iter()
                .chain(looks_at_slots)
                .chain([now + LOOKS_EVERY])
                .min(),
        };
        LOOKS_AT.store(next.map_or(u64::MAX, Timestamp::as_nanos), Ordering::SeqCst);
        // Added between the look and that: whoever added it may have taken the old time for soon.
        let missed = match next {
            Some(next) => SCHEDULE.first().is_some_and(|first| first < next),
            None => SCHEDULE.first().is_some(),
        };
        if missed || (looks_at_slots.is_none() && !unsettled().is_empty()) {
            was_idle = false;
            continue;
        }
        match next {
            Some(next) => {
                timer.as_mut().reset(Instant::now() + next.since(now));
                first_of(earlier, timer.as_mut()).await;
            }
            None => earlier.await,
        }
        was_idle = is_idle;
    }
}

/// Has the thread look at this time, if it would do so later.
fn look_by(at: u64) {
    if at < LOOKS_AT.load(Ordering::SeqCst) {
        EARLIER.notify_one();
    }
}

fn unsettled() -> MutexGuard<'static, Vec<Weak<Slot>>> {
    UNSETTLED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has this slot looked at until there is no need to.
pub(crate) fn look_at(slot: Weak<Slot>) {
    let mut unsettled = unsettled();
    unsettled.push(slot);
    let is_first = unsettled.len() == 1;
    drop(unsettled);
    if is_first {
        look_by((Timestamp::now() + LOOKS_AT_SLOTS_EVERY).as_nanos());
    }
}

fn look_at_slots(now: Timestamp) {
    let slots = std::mem::take(&mut *unsettled());
    let mut again = Vec::new();
    for slot in slots {
        survive(|| {
            if let Some(slot) = slot.upgrade()
                && Arc::clone(&slot).look(now)
            {
                again.push(Arc::downgrade(&slot));
            }
        });
    }
    unsettled().extend(again);
}

/// Signals what has ended, and starts the renewals that are due.
fn look_at_leases(now: Timestamp) {
    let mut due = Vec::new();
    while let Some((hold, due_by)) = SCHEDULE.take_due(now) {
        if hold.has_ended() {
            continue;
        }
        if hold.is_lost() {
            survive(|| hold.lapse());
            continue;
        }
        // Whatever becomes of the renewal, the deadline is kept.
        SCHEDULE.insert(&hold, hold.deadline(), false);
        if hold.take_renewal(now, due_by) {
            due.push(hold);
        }
    }
    if !due.is_empty() {
        survive(|| renewal::start(due));
    }
}

/// Looks at the hold at this time, and not at the time set before.
pub(crate) fn watch(hold: &Arc<Hold>, at: Timestamp) {
    SCHEDULE.insert(hold, at, true);
    look_by(at.as_nanos());
}

/// After the hold was marked as ended: it is not looked at any more.
pub(crate) fn unwatch(hold: &Hold) {
    let mut schedule = SCHEDULE.lock();
    let key = (
        hold.wakes.load(Ordering::Relaxed),
        std::ptr::from_ref(hold).addr(),
    );
    let removed = schedule.remove(&key);
    drop(schedule);
    drop(removed);
}

/// Whether leases of this lock space are watched.
#[cfg(feature = "redis")]
pub(crate) fn watches_any(space: LockSpace) -> bool {
    let schedule = SCHEDULE.lock();
    schedule.values().any(|hold| hold.slot().space == space)
}

/// Renews all locks of this space now, together: nobody knows whether its server still has them.
#[cfg(feature = "redis")]
pub(crate) fn renew_all(space: LockSpace) {
    let schedule = SCHEDULE.lock();
    let holds = schedule.values().filter(|hold| hold.slot().space == space);
    let holds: Vec<_> = holds.cloned().collect();
    drop(schedule);
    let now = Timestamp::now();
    for hold in holds {
        watch(&hold, hold.plan_renewal(now));
    }
}

fn address(hold: &Arc<Hold>) -> usize {
    Arc::as_ptr(hold).addr()
}

impl Schedule {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, usize), Arc<Hold>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> Option<Timestamp> {
        self.lock()
            .first_key_value()
            .map(|(&(at, _), _)| Timestamp::from_nanos(at))
    }

    /// Looks at the hold at this time. What somebody else has set since it was taken out stays,
    /// unless this one `replaces` it.
    fn insert(&self, hold: &Arc<Hold>, at: Timestamp, replaces: bool) {
        let mut schedule = self.lock();
        let set = hold.wakes.load(Ordering::Relaxed);
        if hold.has_ended() || (set != 0 && !replaces) {
            return;
        }
        schedule.remove(&(set, address(hold)));
        hold.wakes.store(at.as_nanos(), Ordering::Relaxed);
        schedule.insert((at.as_nanos(), address(hold)), Arc::clone(hold));
    }

    /// The first hold whose time has come, or whose renewal may as well be done now; and by when
    /// that may be due.
    fn take_due(&self, now: Timestamp) -> Option<(Arc<Hold>, Timestamp)> {
        let mut schedule = self.lock();
        let entry = schedule.first_entry()?;
        let at = Timestamp::from_nanos(entry.key().0);
        let due_by = now + entry.get().early();
        if at > due_by {
            return None;
        }
        let hold = entry.remove();
        hold.wakes.store(0, Ordering::Relaxed);
        Some((hold, due_by))
    }
}
