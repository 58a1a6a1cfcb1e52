//! The timekeeper: the task that reports leases that end, starts renewals that are due, and looks
//! at what is unsettled.
//!
//! It runs on the timer thread, apart from the calls of providers.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use once_cell::sync::OnceCell;
use tokio::time::Instant;

use super::schedule::{
    EARLIER, LOOKS_AT, LOOKS_AT_UNSETTLED_EVERY, SCHEDULE, Unsettled, unsettled, watch,
};
use super::{Lease, renewal, schedule};
use crate::background;
use crate::clock::Timestamp;
use crate::future::select;
use crate::provider::LossListener;
use crate::wake::survive;

/// How often the timekeeper reads the clock while there are leases. Tokio's timers do not count the
/// time for which the machine is suspended, and [`Timestamp`] does.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

static KEEPS: OnceCell<()> = OnceCell::new();

/// Starts the task, at the first call.
fn start() {
    // A failure is reported to the caller that needs the threads next.
    let _ = KEEPS.get_or_try_init(|| background::keep_time(keep()));
}

/// Adds what the timekeeper looks at until it is settled.
pub(crate) fn look_at(one: Weak<dyn Unsettled>) {
    start();
    schedule::look_at(one);
}

impl Lease {
    /// Starts the renewals, and from now on tells the owner of a loss.
    pub(crate) fn watch(self: Arc<Self>) -> Arc<Self> {
        start();
        let listener = Arc::downgrade(&self);
        if self.grant().loss_reporter().tell(listener) {
            // The loss was reported before. The owner holds a lock during this call, so it is told
            // later.
            let lost = Arc::clone(&self);
            let _ = background::run(async move { lost.lost() });
        }
        if self.has_lease() {
            let first = self.grant().valid_from() + self.renewal_interval();
            watch(&self, self.plan_renewal(first));
        }
        self
    }
}

/// Looks at what is due, and sleeps until there is more, for the rest of the process.
async fn keep() {
    let mut timer = pin!(tokio::time::sleep(LOOKS_EVERY));
    let mut looks_at_unsettled = None;
    let mut was_idle = false;
    loop {
        let earlier = EARLIER.notified();
        let now = Timestamp::now();
        if looks_at_unsettled.is_some_and(|at| at <= now) {
            looks_at_unsettled = None;
            look_at_unsettled(now);
        }
        if looks_at_unsettled.is_none() && !unsettled().is_empty() {
            looks_at_unsettled = Some(now + LOOKS_AT_UNSETTLED_EVERY);
        }
        look_at_leases(now);
        let first = SCHEDULE.first();
        // After the last lease it looks once more before it sleeps until it is woken. Where locks
        // come and go, the next lease then need not wake it.
        let is_idle = first.is_none() && looks_at_unsettled.is_none();
        let next = match is_idle && was_idle {
            true => None,
            false => first
                .into_iter()
                .chain(looks_at_unsettled)
                .chain([now + LOOKS_EVERY])
                .min(),
        };
        LOOKS_AT.store(next.map_or(u64::MAX, Timestamp::as_nanos), Ordering::SeqCst);
        // A lease may have been added before this store, by a thread that took the old moment for
        // soon enough.
        let missed = match next {
            Some(next) => SCHEDULE.first().is_some_and(|first| first < next),
            None => SCHEDULE.first().is_some(),
        };
        if missed || (looks_at_unsettled.is_none() && !unsettled().is_empty()) {
            was_idle = false;
            continue;
        }
        match next {
            Some(next) => {
                timer.as_mut().reset(Instant::now() + next.since(now));
                select(earlier, timer.as_mut()).await;
            }
            None => earlier.await,
        }
        was_idle = is_idle;
    }
}

/// Looks at what is unsettled, and forgets what is settled.
fn look_at_unsettled(now: Timestamp) {
    let ones = std::mem::take(&mut *unsettled());
    let mut again = Vec::new();
    for one in ones {
        survive(|| {
            if let Some(looked_at) = one.upgrade()
                && looked_at.look(now)
            {
                again.push(one);
            }
        });
    }
    unsettled().extend(again);
}

/// Reports leases that have ended, and starts the renewals that are due.
fn look_at_leases(now: Timestamp) {
    let mut due = Vec::new();
    while let Some((lease, due_by)) = SCHEDULE.take_due(now) {
        if lease.has_ended() {
            continue;
        }
        if lease.is_lost() {
            survive(|| lease.expire());
            continue;
        }
        // The deadline is watched whatever becomes of the renewal.
        SCHEDULE.insert(&lease, lease.deadline(), false);
        if lease.take_renewal(now, due_by) {
            due.push(lease);
        }
    }
    if !due.is_empty() {
        survive(|| renewal::start(due));
    }
}
