//! A task of the background runtime of which any thread may run a step at once.
//!
//! A request that another thread hands to a background task waits for that thread to wake up. Here
//! the thread runs the step that sends the request by itself. Everything else is left to the
//! background task, which is woken for it as any task is.
//!
//! # Why no step is lost
//!
//! One atomic says whose turn it is. Whoever wants a step takes the turn if it is free, and marks
//! it otherwise. Whoever has the turn clears the mark, then runs a step, and can only let go of a
//! turn without a mark: after a mark it runs another step. All these are read-modify-write
//! operations of one atomic, which are in one order that all threads agree on. So a mark comes
//! either before a clearing, and the step after that sees what the mark was for; or after the last
//! one, and then the turn is not let go. A wake-up marks a turn that is taken, and otherwise wakes
//! the background task, which then takes or marks the turn itself.
//!
//! Nobody waits for a turn. Whoever has had several steps in a row leaves the next to the
//! background task.

mod here;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use once_cell::sync::OnceCell;
use tokio::runtime::Handle;

use self::here::IN_A_ROW;
use crate::background;
use crate::wake::survive;

#[cfg_attr(not(feature = "redis"), allow(unused_imports))]
pub(crate) use here::{Run, caller, run_chain};

/// What the task does, step by step. It runs under a lock, so it wakes nobody but its own task:
/// what is for others, it hands out.
pub(crate) trait Steps: Send + 'static {
    /// What a step has for others.
    type News: Send;

    /// Takes up what was asked for. It is called several times before a step, which sees what these
    /// calls wake the task for.
    fn take_up(&mut self);

    /// Goes on as far as it can, and returns `Ready` when there is nothing left to do, ever.
    fn step(&mut self, context: &mut Context<'_>, news: &mut Vec<Self::News>) -> Poll<()>;

    /// Hands out what a step had for others. No lock is held.
    fn hand_out(news: Self::News);
}

/// A task that runs on the background runtime, and on other threads for a step at a time.
pub(crate) struct SharedTask<S> {
    turn: Arc<Turn>,
    /// The waker that every step runs with, whichever thread runs it.
    waker: Waker,
    /// Only whoever has the turn locks it. `None` when the task has ended.
    steps: Mutex<Option<S>>,
    runtime: Handle,
}

impl<S: Steps> SharedTask<S> {
    /// Starts the task. To be called on the runtime that it is to live on.
    pub(crate) fn start(steps: S) -> Arc<Self> {
        let turn = Arc::<Turn>::default();
        let task = Arc::new(Self {
            waker: Arc::clone(&turn).into(),
            turn,
            steps: Mutex::new(Some(steps)),
            runtime: Handle::current(),
        });
        let weak: Weak<dyn Run> = Arc::<Self>::downgrade(&task);
        let _ = task.turn.task.set(weak);
        let running = Arc::clone(&task);
        background::spawn_beside(poll_fn(move |context| running.poll(context)));
        task
    }

    /// Runs a step on this thread, which may belong to any runtime or to none. If another thread
    /// is at one, that thread runs another one after it. A thread that is ending leaves it to the
    /// background task.
    ///
    /// It never waits and does not panic.
    pub(crate) fn run_here(&self) {
        if Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed()) {
            return self.run_soon();
        }
        if !self.turn.take() {
            return;
        }
        let _caller = here::Caller::note(&self.runtime);
        let _entered = self.runtime.enter();
        // What is left of the caller's own budget must not keep the step from sending.
        let steps = poll_fn(|_| Poll::Ready(self.run()));
        let steps = pin!(tokio::task::unconstrained(steps));
        let _ = steps.poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Has the task run a step soon, with all that is asked for until then.
    pub(crate) fn run_soon(&self) {
        self.waker.wake_by_ref();
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.turn.belongs_to(context.waker());
        match self.turn.take() {
            true => self.run(),
            // The thread that ends the task wakes it once more.
            false => Poll::Pending,
        }
    }

    /// Runs steps until none is due. The caller has the turn, and this lets go of it.
    fn run(&self) -> Poll<()> {
        let mut news = Vec::new();
        let mut outcome = Poll::Pending;
        for step in 1.. {
            let ended = self.step(&mut news);
            if let Poll::Ready(ended) = ended {
                self.turn.let_go();
                self.turn.wake_background();
                // It may drop anything.
                survive(move || drop(ended));
                outcome = Poll::Ready(());
                break;
            }
            if self.turn.let_go_unless_marked() {
                break;
            }
            if step == IN_A_ROW {
                self.turn.let_go();
                self.turn.wake_background();
                break;
            }
        }
        for one in news {
            // It may wake any task.
            survive(move || S::hand_out(one));
        }
        outcome
    }

    /// Runs a step, and returns what is left if it was the last.
    fn step(&self, news: &mut Vec<S::News>) -> Poll<Option<S>> {
        let mut slot = self.lock();
        let Some(steps) = slot.as_mut() else {
            return Poll::Ready(None);
        };
        let stepping = AssertUnwindSafe(|| {
            steps.take_up();
            // What that has woken the task for is seen by the step that follows. What others have
            // asked for before this is taken up now, and what they ask for after it marks the turn.
            self.turn.clear();
            steps.take_up();
            steps.step(&mut Context::from_waker(&self.waker), news)
        });
        match catch_unwind(stepping) {
            Ok(Poll::Pending) => Poll::Pending,
            // The panic hook has reported a panic already.
            Ok(Poll::Ready(())) | Err(_) => Poll::Ready(slot.take()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<S>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Steps> Run for SharedTask<S> {
    fn run_here(&self) {
        self.run_here();
    }

    fn run_soon(&self) {
        self.run_soon();
    }
}

const FREE: u8 = 0;
const TAKEN: u8 = 1;
/// Taken, and another step is due.
const MARKED: u8 = 2;

/// Whose turn it is. As a waker it stands for the task, on whichever thread that is.
#[derive(Default)]
struct Turn {
    state: AtomicU8,
    /// The waker of the background task, once it has run.
    background: Mutex<Option<Waker>>,
    task: OnceCell<Weak<dyn Run>>,
}

impl Turn {
    /// Takes the turn if it is free, and marks it otherwise.
    fn take(&self) -> bool {
        let change = |state| Some(if state == FREE { TAKEN } else { MARKED });
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        before == Ok(FREE)
    }

    /// Takes the mark away. Only for whoever has the turn, as are the next two.
    fn clear(&self) {
        self.state.swap(TAKEN, Ordering::AcqRel);
    }

    fn let_go_unless_marked(&self) -> bool {
        self.state
            .compare_exchange(TAKEN, FREE, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Lets go, marked or not. The background task is to be woken after it.
    fn let_go(&self) {
        self.state.swap(FREE, Ordering::AcqRel);
    }

    fn belongs_to(&self, waker: &Waker) {
        let mut background = self.background();
        match &mut *background {
            Some(known) => known.clone_from(waker),
            None => *background = Some(waker.clone()),
        }
    }

    fn wake_background(&self) {
        // Before it has run for the first time it needs no waking.
        if let Some(waker) = &*self.background() {
            waker.wake_by_ref();
        }
    }

    fn background(&self) -> MutexGuard<'_, Option<Waker>> {
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mark = |state| (state != FREE).then_some(MARKED);
        let marked = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, mark);
        if marked.is_err() && !self.task.get().is_some_and(here::run_next) {
            self.wake_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::mem;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::sync::{Barrier, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A number, and who asked for it.
    type Asked = (usize, mpsc::Sender<usize>);

    /// Takes numbers from a queue, and hands each out to whoever asked.
    #[derive(Default)]
    struct Echo {
        asked: Arc<Mutex<VecDeque<Asked>>>,
        taken_up: VecDeque<Asked>,
        seen: Arc<Seen>,
    }

    #[derive(Default)]
    struct Seen {
        steps: AtomicUsize,
        is_in_step: AtomicBool,
        /// Stands for bytes that have come in, and what is woken for them.
        arrived: AtomicUsize,
        reader: Mutex<Option<Waker>>,
        read: AtomicUsize,
        dropped: AtomicBool,
    }

    impl Steps for Echo {
        type News = Asked;

        fn take_up(&mut self) {
            let taken_up = mem::take(&mut *self.asked.lock().unwrap());
            if !taken_up.is_empty()
                && let Some(waker) = &*self.seen.reader.lock().unwrap()
            {
                // As a channel would.
                waker.wake_by_ref();
            }
            self.taken_up.extend(taken_up);
            hesitate(self.seen.steps.load(Ordering::SeqCst) * 5);
        }

        fn step(&mut self, context: &mut Context<'_>, news: &mut Vec<Self::News>) -> Poll<()> {
            assert!(!self.seen.is_in_step.swap(true, Ordering::SeqCst));
            *self.seen.reader.lock().unwrap() = Some(context.waker().clone());
            let arrived = self.seen.arrived.swap(0, Ordering::SeqCst);
            self.seen.read.fetch_add(arrived, Ordering::SeqCst);
            let steps = self.seen.steps.fetch_add(1, Ordering::SeqCst);
            for (number, answer) in self.taken_up.drain(..) {
                assert!(number < usize::MAX, "asked to panic");
                news.push((number, answer));
            }
            hesitate(steps);
            self.seen.is_in_step.store(false, Ordering::SeqCst);
            Poll::Pending
        }

        fn hand_out((number, answer): Self::News) {
            let _ = answer.send(number);
        }
    }

    impl Drop for Echo {
        fn drop(&mut self) {
            self.seen.dropped.store(true, Ordering::SeqCst);
        }
    }

    /// A task on a runtime with a thread of its own, as the background one is.
    struct Running {
        task: Arc<SharedTask<Echo>>,
        asked: Arc<Mutex<VecDeque<Asked>>>,
        seen: Arc<Seen>,
        /// Jobs for that thread, which ends without this.
        jobs: Option<tokio::sync::mpsc::UnboundedSender<Box<dyn FnOnce() + Send>>>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Running {
        fn start() -> Self {
            let (started, starting) = mpsc::channel();
            let (jobs, mut arriving) =
                tokio::sync::mpsc::unbounded_channel::<Box<dyn FnOnce() + Send>>();
            let thread = thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_time().build().unwrap();
                runtime.block_on(async move {
                    let echo = Echo::default();
                    let (asked, seen) = (Arc::clone(&echo.asked), Arc::clone(&echo.seen));
                    let task = SharedTask::start(echo);
                    started.send((task, asked, seen)).unwrap();
                    while let Some(job) = arriving.recv().await {
                        job();
                    }
                });
            });
            let (task, asked, seen) = starting.recv().unwrap();
            Self {
                task,
                asked,
                seen,
                jobs: Some(jobs),
                thread: Some(thread),
            }
        }

        fn ask(&self, number: usize) -> mpsc::Receiver<usize> {
            let (answer, answered) = mpsc::channel();
            self.asked.lock().unwrap().push_back((number, answer));
            answered
        }

        /// Blocks the task's own thread until what is returned is dropped.
        fn block(&self) -> mpsc::Sender<()> {
            let (blocking, blocked) = mpsc::channel();
            let (free, until) = mpsc::channel::<()>();
            let block = move || {
                blocking.send(()).unwrap();
                let _ = until.recv();
            };
            self.jobs.as_ref().unwrap().send(Box::new(block)).unwrap();
            blocked.recv().unwrap();
            free
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.jobs = None;
            let _ = self.thread.take().map(thread::JoinHandle::join);
        }
    }

    #[test]
    fn a_step_runs_at_once_on_any_thread() {
        let running = Running::start();
        let free = running.block();
        let now = || {
            let answered = running.ask(7);
            running.task.run_here();
            assert_eq!(answered.try_recv(), Ok(7));
        };
        now();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async { now() });
        let runtime = tokio::runtime::Builder::new_multi_thread().build();
        runtime.unwrap().block_on(async { now() });
        let answered = running.ask(8);
        running.task.run_soon();
        assert!(answered.try_recv().is_err(), "it is left to the thread");
        drop(free);
        assert_eq!(answered.recv_timeout(PATIENCE), Ok(8));
    }

    #[test]
    fn a_thread_that_is_ending_may_ask() {
        struct Asks(Arc<SharedTask<Echo>>);
        impl Drop for Asks {
            fn drop(&mut self) {
                assert!(
                    Handle::try_current()
                        .unwrap_err()
                        .is_thread_local_destroyed()
                );
                self.0.run_here();
            }
        }
        thread_local!(static ASKS: RefCell<Option<Asks>> = const { RefCell::new(None) });
        let running = Running::start();
        let answered = running.ask(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                ASKS.set(Some(Asks(Arc::clone(&running.task))));
                // What tokio keeps for this thread is dropped before what was there before it.
                assert!(Handle::try_current().is_err());
            });
        });
        assert_eq!(answered.recv_timeout(PATIENCE), Ok(1));
    }

    /// In every round some ask, each in its way, and one wakes the task as a socket does. Then
    /// nobody does anything more, so that what is lost stays lost.
    #[test]
    fn no_step_is_lost_among_many_threads() {
        const ASKERS: usize = 3;
        const ROUNDS: usize = 4_000;
        let running = Running::start();
        // The task's own thread may be in its first step just now, which knows no waker before it.
        let began = Timestamp::now();
        while running.seen.reader.lock().unwrap().is_none() {
            assert!(Timestamp::now().since(began) < PATIENCE, "no step has run");
            running.task.run_here();
            thread::yield_now();
        }
        let together = Barrier::new(ASKERS + 1);
        // The round in which something was lost. All go on with it, and nobody with the next.
        let lost = AtomicUsize::new(usize::MAX);
        thread::scope(|scope| {
            for asker in 0..ASKERS {
                let (running, together, lost) = (&running, &together, &lost);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        together.wait();
                        if lost.load(Ordering::SeqCst) < round {
                            break;
                        }
                        hesitate(round * (asker + 1));
                        let answered = running.ask(round);
                        match (asker, round % 4) {
                            (0, 0) => running.task.run_soon(),
                            _ => running.task.run_here(),
                        }
                        if answered.recv_timeout(PATIENCE).is_err() {
                            lost.fetch_min(round, Ordering::SeqCst);
                        }
                    }
                });
            }
            for round in 0..ROUNDS {
                together.wait();
                if lost.load(Ordering::SeqCst) < round {
                    break;
                }
                hesitate(round * 7);
                running.seen.arrived.fetch_add(1, Ordering::SeqCst);
                let waker = running.seen.reader.lock().unwrap().clone();
                waker.expect("a step has run").wake();
                let began = Timestamp::now();
                while running.seen.read.load(Ordering::SeqCst) <= round {
                    thread::yield_now();
                    if Timestamp::now().since(began) >= PATIENCE {
                        lost.fetch_min(round, Ordering::SeqCst);
                        break;
                    }
                }
            }
        });
        let lost = lost.into_inner();
        assert_eq!(lost, usize::MAX, "something was lost in this round");
    }

    /// Passes a moment, which is each time another one.
    fn hesitate(number: usize) {
        for _ in 0..number % 97 {
            std::hint::spin_loop();
        }
        if number.is_multiple_of(3) {
            thread::yield_now();
        }
    }

    #[test]
    fn a_panic_ends_the_task_and_nobody_else() {
        let running = Running::start();
        let free = running.block();
        let answered = running.ask(usize::MAX);
        running.task.run_here();
        assert!(answered.try_recv().is_err());
        assert!(running.seen.dropped.load(Ordering::SeqCst));
        running.task.run_here();
        drop(free);
        let task = Arc::downgrade(&running.task);
        drop(running);
        assert!(task.upgrade().is_none(), "its background task has ended");
    }
}
