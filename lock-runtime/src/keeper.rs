//! The keeper: the process's one background thread, with a runtime of its own.
//!
//! It runs every call of a provider, renews leases, notices the ones that end, and releases the
//! locks of dropped guards. Being apart from the user's runtimes, it goes on while they are busy,
//! blocked or gone.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use once_cell::sync::{Lazy, OnceCell};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use crate::clock::Timestamp;
use crate::hold::Hold;
use crate::race::{First, first_of};
use crate::renewal;
use crate::{LockError, LockErrorKind};

/// Tokio's timers do not count the time that the machine sleeps, so the clock that does is looked
/// at this often while there are leases.
const LOOKS_EVERY: Duration = Duration::from_millis(500);
/// Threads for providers that must block.
const BLOCKING_THREADS: usize = 32;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Keeper {
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
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static JOB_DONE: Lazy<Notify> = Lazy::new(Notify::new);

fn keeper() -> Result<&'static Keeper, LockError> {
    KEEPER.get_or_try_init(|| {
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
        Ok(Keeper { jobs, handle })
    })
}

async fn keep(mut arriving: mpsc::UnboundedReceiver<Job>) {
    // One timer for all looks: setting it up costs more than a look.
    let mut timer = pin!(tokio::time::sleep(LOOKS_EVERY));
    let mut rings = Timestamp::now() + LOOKS_EVERY;
    loop {
        let earlier = EARLIER.notified();
        if let Some(first) = SCHEDULE.first() {
            let now = Timestamp::now();
            let next = first.min(now + LOOKS_EVERY);
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
        if hold.take_renewal(now) {
            due.push(Arc::clone(&hold));
        }
        // Whatever becomes of the renewal, the deadline is kept.
        watch(&hold, hold.deadline());
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

/// Runs a job of the gate. It is finished even if everybody who waits for it goes away.
pub(crate) fn run(job: impl Future<Output = ()> + Send + 'static) -> Result<(), LockError> {
    let keeper = keeper()?;
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    let done = Done;
    let counted = async move {
        let _done = done;
        job.await;
    };
    keeper.jobs.send(Box::pin(counted)).map_err(|_| stopped())
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
    answered.await.map_err(|_| panicked())
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

/// A provider's call; a panic in it is that provider's failure, and nobody else's.
pub(crate) async fn caught<T>(
    call: impl Future<Output = Result<T, LockError>>,
) -> Result<T, LockError> {
    let mut call = pin!(call);
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    })
    .await
}

/// What runs code of users and providers, such as their wakers and destructors: a panic in it must
/// not end the keeper, nor keep a job from its end. The panic hook has said it already.
pub(crate) fn survive(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}

fn panicked() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable).with_detail("the provider panicked")
}

fn stopped() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the thread that keeps the locks has ended")
}
