//! The process's two background threads, each with a runtime of its own.
//!
//! The background thread runs the calls of providers: acquisitions, renewals and releases. (The
//! thread of a caller may run a step of a group of calls, on this thread's runtime.) The timer
//! thread keeps time: the ends of leases, of waits and of `max_hold`. So a provider that blocks the
//! background thread delays neither a timeout nor the report of a loss.
//!
//! Both threads go on while the user's runtimes are busy, blocked or gone.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use once_cell::sync::{Lazy, OnceCell};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::call::Panicked;
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::future::{First, select};

/// How often a wait asks at most whether this is the process that started the threads.
const ASKS_EVERY: Duration = Duration::from_millis(1);
/// How many threads there are at most for the blocking work of providers.
const BLOCKING_THREADS: usize = 32;

/// A future that the background thread runs to its end.
pub(crate) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Background {
    /// The process that started the threads. A child made by `fork` does not have them.
    process: u32,
    jobs: mpsc::UnboundedSender<Job>,
    /// The handle of the runtime that keeps time.
    timers: Handle,
}

static BACKGROUND: OnceCell<Background> = OnceCell::new();
static TIMER: OnceCell<ThreadId> = OnceCell::new();
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static LAST_DONE: Lazy<Notify> = Lazy::new(Notify::new);

/// Returns the threads of this process, started at the first call.
fn background() -> Result<&'static Background, LockError> {
    let background = BACKGROUND.get_or_try_init(|| start().map_err(not_started))?;
    if background.process != std::process::id() {
        return Err(forked());
    }
    Ok(background)
}

/// Does the same as [`background`] for waits. Those come so often that a system call for each, to
/// learn the process's number, would cost more than they do.
fn background_for_wait() -> Result<&'static Background, LockError> {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let now = Timestamp::roughly();
    let asked = Timestamp::from_nanos(ASKED.load(Ordering::Relaxed));
    if asked != Timestamp::NONE
        && now.since(asked) < ASKS_EVERY
        && let Some(background) = BACKGROUND.get()
    {
        return Ok(background);
    }
    let background = background()?;
    ASKED.store(now.as_nanos(), Ordering::Relaxed);
    Ok(background)
}

fn start() -> Result<Background, std::io::Error> {
    let calls = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("lock-background")
        .build()?;
    let time = Builder::new_current_thread().enable_time().build()?;
    let timers = time.handle().clone();
    let (jobs, arriving) = mpsc::unbounded_channel();
    let thread = |name: &str| thread::Builder::new().name(name.to_owned());
    thread("lock-background").spawn(move || calls.block_on(run_all(arriving)))?;
    thread("lock-timer").spawn(move || {
        let _ = TIMER.set(thread::current().id());
        time.block_on(std::future::pending::<()>())
    })?;
    Ok(Background {
        process: std::process::id(),
        jobs,
        timers,
    })
}

async fn run_all(mut arriving: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = arriving.recv().await {
        spawn_beside(job);
        while let Ok(job) = arriving.try_recv() {
            spawn_beside(job);
        }
    }
}

/// Runs this task on the timer thread, for the rest of the process. It must not block.
///
/// # Errors
///
/// If the threads could not be started.
pub(crate) fn keep_time(task: impl Future<Output = ()> + Send + 'static) -> Result<(), LockError> {
    background()?.timers.spawn(task);
    Ok(())
}

/// Tells whether this is the thread that keeps time, which must not be held up.
pub(crate) fn keeps_time_here() -> bool {
    TIMER.get() == Some(&thread::current().id())
}

/// Tells whether the threads are there, or could be started.
pub(crate) fn is_there() -> bool {
    background_for_wait().is_ok()
}

/// Runs a task beside the one that is being polled, on the same runtime. To be called within the
/// background runtime, in which all calls of providers are polled.
pub(crate) fn spawn_beside<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    tokio::spawn(task)
}

/// Runs a job on the background thread. [`drained`] does not wait for it.
pub(crate) fn spawn(job: impl Future<Output = ()> + Send + 'static) {
    if let Ok(background) = background() {
        let _ = background.jobs.send(Box::pin(job));
    }
}

/// Runs a job of the gate on the background thread, to its end.
///
/// # Errors
///
/// If the job cannot be run. It comes back, because its destructor may run code of users and
/// providers, for which the caller must choose the moment.
pub(crate) fn run(job: impl Future<Output = ()> + Send + 'static) -> Result<(), (LockError, Job)> {
    run_on(background(), job)
}

/// Does the same as [`run`] for a job that soon follows an acquisition, at less cost.
pub(crate) fn run_next(
    job: impl Future<Output = ()> + Send + 'static,
) -> Result<(), (LockError, Job)> {
    run_on(background_for_wait(), job)
}

fn run_on(
    background: Result<&Background, LockError>,
    job: impl Future<Output = ()> + Send + 'static,
) -> Result<(), (LockError, Job)> {
    let background = match background {
        Ok(background) => background,
        Err(error) => return Err((error, Box::pin(job))),
    };
    let done = Done::count();
    let counted = async move {
        let _done = done;
        job.await;
    };
    let sent = background.jobs.send(Box::pin(counted));
    sent.map_err(|unsent| (stopped(), unsent.0))
}

/// Counts something as under way, without running a job for it.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn count() -> Result<Done, LockError> {
    background()?;
    Ok(Done::count())
}

/// Does the same as [`count`] for what soon follows an acquisition, at less cost.
pub(crate) fn count_next() -> Result<Done, LockError> {
    background_for_wait()?;
    Ok(Done::count())
}

/// Counts a job as done when it is dropped.
pub(crate) struct Done(());

impl Done {
    fn count() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        // Whoever waits does so for the last of them.
        if UNDER_WAY.fetch_sub(1, Ordering::AcqRel) == 1 {
            LAST_DONE.notify_waiters();
        }
    }
}

/// Waits until no job is under way.
pub(crate) async fn drained() {
    loop {
        let done = LAST_DONE.notified();
        if UNDER_WAY.load(Ordering::Acquire) == 0 {
            return;
        }
        done.await;
    }
}

/// Runs a future on the background thread, where what it spawns outlives the user's runtimes, and
/// returns its output.
///
/// # Errors
///
/// If the threads could not be started, or the future panicked.
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
pub(crate) async fn run_here<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, LockError> {
    let (answer, answered) = oneshot::channel();
    let job = async move {
        // The send fails if the caller has gone away.
        let _ = answer.send(future.await);
    };
    background()?
        .jobs
        .send(Box::pin(job))
        .map_err(|_| stopped())?;
    answered.await.map_err(|_| Panicked.into())
}

/// Makes a timer that runs on the timer thread. It may be awaited on any runtime, or on none.
pub(crate) fn sleep_until(at: Timestamp) -> Result<Sleep, LockError> {
    sleep(at.remaining())
}

/// Does the same as [`sleep_until`], for a span that begins now.
pub(crate) fn sleep(span: Duration) -> Result<Sleep, LockError> {
    let _entered = background_for_wait()?.timers.enter();
    Ok(tokio::time::sleep(span))
}

/// Waits for the future, but no longer than `limit`. Returns `None` if the limit has passed, or if
/// there is no timer.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let timer = sleep_until(Timestamp::now() + limit).ok()?;
    match select(future, timer).await {
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
