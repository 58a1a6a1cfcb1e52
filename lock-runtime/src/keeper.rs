//! The keeper: the process's background threads, each with a runtime of its own.
//!
//! One runs every call of a provider: acquisitions, renewals, and the releases of dropped guards.
//! The other one keeps time: the ends of leases, of waits and of `max_hold`. A provider that blocks
//! the first one so delays neither a timeout nor the news of a loss. Being apart from the user's
//! runtimes, both go on while those are busy, blocked or gone.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use once_cell::sync::{Lazy, OnceCell};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Sleep;

use crate::call::Panicked;
use crate::clock::Timestamp;
use crate::race::{First, first_of};
use crate::{LockError, LockErrorKind, schedule};

pub(crate) use crate::schedule::{unwatch, watch};

/// Whether this is the process that started the threads is asked this often at most, where waits
/// follow each other.
const ASKS_EVERY: Duration = Duration::from_millis(1);
/// Threads for providers that must block.
const BLOCKING_THREADS: usize = 32;

/// What the background thread runs to its end.
pub(crate) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Keeper {
    /// A child made by `fork` has none of the threads.
    process: u32,
    jobs: mpsc::UnboundedSender<Job>,
    /// Of the runtime that keeps time.
    timers: Handle,
}

static KEEPER: OnceCell<Keeper> = OnceCell::new();
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static JOB_DONE: Lazy<Notify> = Lazy::new(Notify::new);

fn keeper() -> Result<&'static Keeper, LockError> {
    let keeper = KEEPER.get_or_try_init(|| start().map_err(not_started))?;
    if keeper.process != std::process::id() {
        return Err(forked());
    }
    Ok(keeper)
}

/// The same, for waits: they come so often, one after another, that asking the system each time
/// would cost more than they do.
fn keeper_of_waits() -> Result<&'static Keeper, LockError> {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let now = Timestamp::roughly();
    let asked = Timestamp::from_nanos(ASKED.load(Ordering::Relaxed));
    if asked != Timestamp::NONE
        && now.since(asked) < ASKS_EVERY
        && let Some(keeper) = KEEPER.get()
    {
        return Ok(keeper);
    }
    let keeper = keeper()?;
    ASKED.store(now.as_nanos(), Ordering::Relaxed);
    Ok(keeper)
}

fn start() -> Result<Keeper, std::io::Error> {
    let calls = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("lock-keeper-io")
        .build()?;
    let time = Builder::new_current_thread().enable_time().build()?;
    let timers = time.handle().clone();
    let (jobs, arriving) = mpsc::unbounded_channel();
    let thread = |name: &str| thread::Builder::new().name(name.to_owned());
    thread("lock-keeper").spawn(move || calls.block_on(run_all(arriving)))?;
    thread("lock-timer").spawn(move || time.block_on(schedule::keep()))?;
    Ok(Keeper {
        process: std::process::id(),
        jobs,
        timers,
    })
}

async fn run_all(mut arriving: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = arriving.recv().await {
        tokio::spawn(job);
        while let Ok(job) = arriving.try_recv() {
            tokio::spawn(job);
        }
    }
}

/// Whether the threads are there, or could be started.
pub(crate) fn is_there() -> bool {
    keeper_of_waits().is_ok()
}

/// Runs what nobody waits for.
pub(crate) fn spawn(job: impl Future<Output = ()> + Send + 'static) {
    if let Ok(keeper) = keeper() {
        let _ = keeper.jobs.send(Box::pin(job));
    }
}

/// Runs a job of the gate. It is finished even if everybody who waits for it goes away. If it
/// cannot be run, it comes back, since dropping it runs code of others.
pub(crate) fn run(job: impl Future<Output = ()> + Send + 'static) -> Result<(), (LockError, Job)> {
    run_on(keeper(), job)
}

/// Runs what follows an acquisition.
pub(crate) fn run_next(
    job: impl Future<Output = ()> + Send + 'static,
) -> Result<(), (LockError, Job)> {
    run_on(keeper_of_waits(), job)
}

fn run_on(
    keeper: Result<&Keeper, LockError>,
    job: impl Future<Output = ()> + Send + 'static,
) -> Result<(), (LockError, Job)> {
    let keeper = match keeper {
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
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
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
    let now = Timestamp::now();
    let _entered = keeper_of_waits()?.timers.enter();
    Ok(tokio::time::sleep(at.since(now)))
}

/// Waits for the future, but no longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let timer = sleep_until(Timestamp::now() + limit).ok()?;
    match first_of(future, timer).await {
        First::Left(output) => Some(output),
        First::Right(()) => None,
    }
}

fn not_started(error: std::io::Error) -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the threads that keep the locks could not be started")
        .with_source(error)
}

fn forked() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable).with_detail(
        "this process was made by fork after its parent's first lock, and the threads that keep \
         the locks are not in it; fork before the first lock, or start a program",
    )
}

fn stopped() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the thread that keeps the locks has ended")
}
