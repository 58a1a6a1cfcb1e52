//! The keeper: the process's one background thread, with a runtime of its own.
//!
//! It runs every call of a provider, renews leases, notices the ones that end, and releases the
//! locks of dropped guards. Being apart from the user's runtimes, it goes on while they are busy,
//! blocked or gone.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use once_cell::sync::{Lazy, OnceCell};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use crate::call::Panicked;
use crate::clock::Timestamp;
use crate::gate::Slot;
use crate::hold::Hold;
#[cfg(feature = "redis")]
use crate::provider::LockSpace;
use crate::race::{First, first_of};
use crate::renewal;
use crate::wake::survive;
use crate::{LockError, LockErrorKind};

/// Tokio's timers do not count the time that the machine sleeps, so the clock that does is looked
/// at this often while there are leases.
const LOOKS_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether grants are taken, while there are some that were not.
const LOOKS_AT_GRANTS_EVERY: Duration = Duration::from_millis(100);
/// Threads for providers that must block.
const BLOCKING_THREADS: usize = 32;

/// What the background thread runs to its end.
pub(crate) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Keeper {
    /// A child made by `fork` has none of the threads.
    process: u32,
    jobs: mpsc::UnboundedSender<Job>,
    handle: Handle,
}

/// When to look at which hold next, by time and, for equal times, by address.
#[derive(Default)]
struct Schedule(Mutex<BTreeMap<(u64, usize), Arc<Hold>>>);

static KEEPER: OnceCell<Keeper> = OnceCell::new();
static SCHEDULE: Lazy<Schedule> = Lazy::new(Schedule::default);
/// The schedule has a new first entry.
static EARLIER: Lazy<Notify> = Lazy::new(Notify::new);
/// Slots whose grant was given to a waiter who has not looked yet.
static UNTAKEN: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static JOB_DONE: Lazy<Notify> = Lazy::new(Notify::new);

fn keeper() -> Result<&'static Keeper, LockError> {
    let keeper = KEEPER.get_or_try_init(|| {
        let unavailable = |error: std::io::Error| {
            LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail("the thread that keeps the locks could not be started")
                .with_source(error)
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("lock-keeper-io")
            .build()
            .map_err(unavailable)?;
        let handle = runtime.handle().clone();
        let (jobs, arriving) = mpsc::unbounded_channel();
        thread::Builder::new()
            .name("lock-keeper".to_owned())
            .spawn(move || runtime.block_on(keep(arriving)))
            .map_err(unavailable)?;
        Ok::<_, LockError>(Keeper {
            process: std::process::id(),
            jobs,
            handle,
        })
    })?;
    if keeper.process != std::process::id() {
        return Err(forked());
    }
    Ok(keeper)
}

fn forked() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable).with_detail(
        "this process was made by fork after its parent's first lock, and the thread that keeps \
         the locks is not in it; fork before the first lock, or start a program",
    )
}

async fn keep(mut arriving: mpsc::UnboundedReceiver<Job>) {
    // One timer for all looks: setting it up costs more than a look.
    let mut timer = pin!(tokio::time::sleep(LOOKS_EVERY));
    let mut rings = Timestamp::now() + LOOKS_EVERY;
    let mut looks_at_grants = None;
    loop {
        let earlier = EARLIER.notified();
        let now = Timestamp::now();
        if looks_at_grants.is_some_and(|at| at <= now) {
            looks_at_grants = None;
            look_at_grants(now);
        }
        if looks_at_grants.is_none() && !untaken().is_empty() {
            looks_at_grants = Some(now + LOOKS_AT_GRANTS_EVERY);
        }
        let first = SCHEDULE.first().map(|first| first.min(now + LOOKS_EVERY));
        let next = first.into_iter().chain(looks_at_grants).min();
        if let Some(next) = next {
            // One that rings sooner than it need does no harm.
            if next < rings || rings <= now {
                rings = next;
                timer.as_mut().reset(Instant::now() + next.since(now));
            }
            let woken = first_of(earlier, timer.as_mut());
            if let First::Left(Some(job)) = first_of(arriving.recv(), woken).await {
                start(job, &mut arriving);
            }
        } else if let First::Left(Some(job)) = first_of(arriving.recv(), earlier).await {
            start(job, &mut arriving);
        }
        look_at_leases();
    }
}

fn untaken() -> MutexGuard<'static, Vec<Weak<Slot>>> {
    UNTAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the grant of this slot looked at until it is taken, or taken back. False if nobody can.
pub(crate) fn look_at(slot: Weak<Slot>) -> bool {
    if keeper().is_err() {
        return false;
    }
    let mut untaken = untaken();
    untaken.push(slot);
    let is_first = untaken.len() == 1;
    drop(untaken);
    if is_first {
        EARLIER.notify_one();
    }
    true
}

fn look_at_grants(now: Timestamp) {
    let slots = std::mem::take(&mut *untaken());
    let mut again = Vec::new();
    for slot in slots {
        survive(|| {
            if let Some(slot) = slot.upgrade()
                && Arc::clone(&slot).look_at_grant(now)
            {
                again.push(Arc::downgrade(&slot));
            }
        });
    }
    untaken().extend(again);
}

fn start(job: Job, arriving: &mut mpsc::UnboundedReceiver<Job>) {
    tokio::spawn(job);
    while let Ok(job) = arriving.try_recv() {
        tokio::spawn(job);
    }
}

/// Signals what has ended, and starts the renewals that are due.
fn look_at_leases() {
    let mut due = Vec::new();
    let now = Timestamp::now();
    while let Some(hold) = SCHEDULE.take_due(now) {
        if hold.has_ended() {
            continue;
        }
        if hold.deadline() <= now {
            survive(|| hold.lapse());
            continue;
        }
        let due_by = now + hold.early();
        // Whatever becomes of the renewal, the deadline is kept.
        watch(&hold, hold.deadline());
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
    let mut schedule = SCHEDULE.lock();
    let key = address(hold);
    schedule.remove(&(hold.wakes.load(Ordering::Relaxed), key));
    if hold.has_ended() {
        return;
    }
    let first = schedule.first_key_value().map(|(&(first, _), _)| first);
    hold.wakes.store(at.as_nanos(), Ordering::Relaxed);
    schedule.insert((at.as_nanos(), key), Arc::clone(hold));
    drop(schedule);
    if first.is_none_or(|first| at.as_nanos() < first) {
        EARLIER.notify_one();
    }
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

    /// The first hold whose time has come, or whose renewal may as well be done now.
    fn take_due(&self, now: Timestamp) -> Option<Arc<Hold>> {
        let mut schedule = self.lock();
        let entry = schedule.first_entry()?;
        let at = Timestamp::from_nanos(entry.key().0);
        let early = entry.get().early();
        (at <= now + early).then(|| entry.remove())
    }
}

/// Runs a job of the gate. It is finished even if everybody who waits for it goes away. If it
/// cannot be run, it comes back, since dropping it runs code of others.
pub(crate) fn run(job: impl Future<Output = ()> + Send + 'static) -> Result<(), (LockError, Job)> {
    let keeper = match keeper() {
        Ok(keeper) => keeper,
        Err(error) => return Err((error, Box::pin(job))),
    };
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    let done = Done;
    let counted = async move {
        let _done = done;
        job.await;
    };
    let sent = keeper.jobs.send(Box::pin(counted));
    sent.map_err(|unsent| (stopped(), unsent.0))
}

struct Done;

impl Drop for Done {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Release);
        JOB_DONE.notify_waiters();
    }
}

/// Waits until no job is under way.
pub(crate) async fn drained() {
    loop {
        let done = JOB_DONE.notified();
        if UNDER_WAY.load(Ordering::Acquire) == 0 {
            return;
        }
        done.await;
    }
}

/// Runs a future on the keeper's runtime, where what it spawns outlives the user's runtimes, and
/// returns its output.
///
/// # Errors
///
/// If the keeper could not be started, or the future panicked.
#[cfg_attr(
    not(any(feature = "postgres", feature = "redis", feature = "zookeeper")),
    allow(dead_code)
)]
pub(crate) async fn run_on_keeper<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, LockError> {
    let (answer, answered) = oneshot::channel();
    let job = async move {
        // Whoever asked may have gone away.
        let _ = answer.send(future.await);
    };
    keeper()?.jobs.send(Box::pin(job)).map_err(|_| stopped())?;
    answered.await.map_err(|_| Panicked.into())
}

/// A timer that needs nothing of the runtime it is awaited on.
pub(crate) fn sleep_until(at: Timestamp) -> Result<Sleep, LockError> {
    let _entered = keeper()?.handle.enter();
    Ok(tokio::time::sleep(at.remaining()))
}

/// Waits for the future, but no longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let timer = sleep_until(Timestamp::now() + limit).ok()?;
    match first_of(future, timer).await {
        First::Left(output) => Some(output),
        First::Right(()) => None,
    }
}

fn stopped() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the thread that keeps the locks has ended")
}
