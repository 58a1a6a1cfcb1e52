//! `CallQueue`: the calls of one provider that are due, and the lanes that make them in groups.
//!
//! A call that finds a lane idle is made at once, on the thread that asks for it. What becomes due
//! while all lanes are busy goes together, as soon as one is done. So under load groups grow.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use once_cell::sync::Lazy;

use crate::alarm::Alarm;
use crate::background::{self, Job, spawn_beside};
use crate::call::measured;
use crate::clock::Timestamp;
use crate::future::BoxFuture;
use crate::provider::{Call, LockProvider};
use crate::sending::{is_over_here, watched};
use crate::shared_task::{SharedTask, Steps};
use crate::wake::survive;

/// How many groups are under way at once: while the answers to one are read, the server works on
/// the other.
const LANES: usize = 2;
/// A group that takes longer does not hold up the next ones any more.
const PATIENCE: Duration = Duration::from_millis(50);

/// How many queues are kept that no provider uses now.
const MOST_UNUSED: usize = 8;

/// The calls that are due for one provider and its clones.
pub(crate) struct CallQueue {
    most: NonZeroUsize,
    due: Mutex<Due>,
}

#[derive(Default)]
struct Due {
    calls: VecDeque<DueWork>,
    lanes: [Option<Lane>; LANES],
    /// Which lanes have nothing to do.
    idle: [bool; LANES],
    /// Whether the lanes were started, or are about to be.
    started: bool,
    /// How many callers add several calls that should go together.
    gathering: usize,
}

/// What a lane does at once.
enum DueWork {
    /// Goes together with others.
    Call(DueCall),
    Alone(Job),
}

/// A call that is due.
pub(crate) struct DueCall {
    /// The provider that makes it, or a clone of it.
    pub(crate) provider: Arc<dyn LockProvider>,
    /// The provider's name, for the log.
    pub(crate) name: &'static str,
    pub(crate) call: Call,
    pub(crate) watch: Option<Watch>,
}

/// What is told of a call while it is under way.
pub(crate) struct Watch {
    /// Gone when the call has been answered.
    pub(crate) caller: Weak<dyn Watcher>,
    /// When the call is overdue.
    pub(crate) until: Timestamp,
    /// Whether to tell that the call's request has been handed to the connection.
    pub(crate) tells_sent: bool,
}

impl Watch {
    /// Says whether there is still time for an answer, and tells the caller if there is not.
    fn is_in_time(&self) -> bool {
        let in_time = !self.until.has_passed();
        match self.caller.upgrade() {
            Some(caller) if !in_time => survive(|| caller.overdue()),
            _ => {}
        }
        in_time
    }
}

/// Who is told of a call while it is under way.
pub(crate) trait Watcher: Send + Sync {
    /// Lets others go on without the answer. If it came before, this does nothing.
    fn overdue(&self);

    /// Lets the caller go on, since the request has been handed to the connection. `exactly` says
    /// that it was written, so that what is asked for later comes later.
    fn sent(&self, exactly: bool);
}

/// The queues of the process, the last used last. A call may make its provider's `Source` anew each
/// time, so a queue outlives it. A queue knows nothing of its provider, so that it does no harm if
/// another one has the same address later.
static QUEUES: Lazy<Mutex<Queues>> = Lazy::new(Mutex::default);

type Queues = Vec<(Key, Arc<CallQueue>)>;

/// What the providers that share a queue have in common.
pub(crate) type Key = (bool, usize);

impl CallQueue {
    /// Returns the queue of a provider and its clones, which have this key.
    pub(crate) fn of(key: Key, most: NonZeroUsize) -> Arc<Self> {
        let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
        let it = |(other, queue): &(Key, Arc<Self>)| *other == key && queue.most == most;
        if let Some(at) = queues.iter().position(it) {
            let found = queues.remove(at);
            let queue = Arc::clone(&found.1);
            queues.push(found);
            return queue;
        }
        let unused = |(_, queue): &(Key, Arc<Self>)| Arc::strong_count(queue) == 1;
        if queues.iter().filter(|queue| unused(queue)).count() >= MOST_UNUSED
            && let Some(at) = queues.iter().position(unused)
        {
            queues.remove(at);
        }
        let queue = Arc::new(Self {
            most,
            due: Mutex::default(),
        });
        queues.push((key, Arc::clone(&queue)));
        queue
    }

    /// Adds a call. Returns a lane that is idle, to be run when the caller holds no lock.
    pub(crate) fn push(self: &Arc<Self>, call: DueCall) -> Option<Lane> {
        self.add(DueWork::Call(call))
    }

    /// Adds a job that makes a call of its own. Returns the same.
    pub(crate) fn push_alone(self: &Arc<Self>, job: Job) -> Option<Lane> {
        self.add(DueWork::Alone(job))
    }

    fn add(self: &Arc<Self>, work: DueWork) -> Option<Lane> {
        let mut due = self.lock();
        due.calls.push_back(work);
        if !std::mem::replace(&mut due.started, true) {
            let queue = Arc::downgrade(self);
            background::spawn(async move {
                (0..LANES).for_each(|lane| start(&queue, lane));
            });
        }
        due.take_idle_lane()
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due {
    /// Returns a lane that is idle, unless more calls are about to be added.
    fn take_idle_lane(&mut self) -> Option<Lane> {
        if self.gathering > 0 {
            return None;
        }
        let lane = self.idle.iter().position(|idle| *idle)?;
        self.idle[lane] = false;
        self.lanes[lane].clone()
    }
}

/// Has the calls that are added wait for each other until this is dropped, so that they go together.
/// To be kept for a moment only, and not across an await.
pub(crate) struct Gathering(Arc<CallQueue>);

impl Gathering {
    pub(crate) fn begin(queue: &Arc<CallQueue>) -> Self {
        queue.lock().gathering += 1;
        Self(Arc::clone(queue))
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        let mut due = self.0.lock();
        due.gathering -= 1;
        let lane = match due.calls.is_empty() {
            true => None,
            false => due.take_idle_lane(),
        };
        drop(due);
        if let Some(lane) = lane {
            lane.run();
        }
    }
}

impl Drop for CallQueue {
    fn drop(&mut self) {
        // Each finds the queue gone, and ends.
        let due = self.due.get_mut().unwrap_or_else(PoisonError::into_inner);
        for lane in due.lanes.iter().flatten() {
            lane.0.run_soon();
        }
    }
}

/// A task that makes calls, a group at a time.
#[derive(Clone)]
pub(crate) struct Lane(Arc<SharedTask<Groups>>);

impl Lane {
    /// Makes what is due, as far as this thread can without waiting.
    pub(crate) fn run(&self) {
        // A thread that keeps time, or is ending, makes no call.
        match background::keeps_time_here() || is_over_here() {
            true => self.0.run_soon(),
            false => self.0.run_here(),
        }
    }
}

/// Starts a lane, on the background thread. One of this number that is there ends after its group.
fn start(queue: &Weak<CallQueue>, lane: usize) {
    let Some(there) = queue.upgrade() else { return };
    let groups = Groups(make_calls(Weak::clone(queue), lane));
    let mut due = there.lock();
    due.idle[lane] = false;
    // Under the lock, since the task may run on another thread at once, and then says that it is
    // idle.
    let task = SharedTask::start(groups);
    let before = due.lanes[lane].replace(Lane(task));
    drop(due);
    drop(before);
}

/// What a lane does.
struct Groups(BoxFuture<'static, ()>);

impl Steps for Groups {
    type News = ();

    fn take_up(&mut self) {}

    fn step(&mut self, context: &mut Context<'_>, _: &mut Vec<()>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }

    fn hand_out((): ()) {}
}

/// Makes the calls that are due, a group at a time, until the queue is gone.
fn make_calls(queue: Weak<CallQueue>, lane: usize) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut lives = Lives {
            queue,
            lane,
            has_ended: false,
        };
        let mut group = Vec::new();
        let mut alarm = Alarm::default();
        while !lives.has_ended {
            let due = poll_fn(|_| take_due(&lives.queue, lives.lane, &mut group)).await;
            let hangs = || {
                // What becomes due meanwhile must not wait for a group that hangs.
                lives.has_ended = true;
                start(&lives.queue, lives.lane);
            };
            match due {
                Taken::Group => make_group(&mut group, &mut alarm, hangs).await,
                Taken::Alone(job) => in_time(job, &mut Vec::new(), &mut alarm, hangs).await,
                Taken::Nothing => break,
            }
        }
        lives.has_ended = true;
    })
}

/// Starts the lane anew if it ends by a panic.
struct Lives {
    queue: Weak<CallQueue>,
    lane: usize,
    /// Whether it needs no successor any more: it has one, or the queue is gone.
    has_ended: bool,
}

impl Drop for Lives {
    fn drop(&mut self) {
        if !self.has_ended {
            let (queue, lane) = (Weak::clone(&self.queue), self.lane);
            background::spawn(async move { start(&queue, lane) });
        }
    }
}

/// What a lane has taken to do.
enum Taken {
    Group,
    Alone(Job),
    /// Nothing can become due any more.
    Nothing,
}

/// Takes what is due: a job, or the calls that come before the next one, as a group.
fn take_due(queue: &Weak<CallQueue>, lane: usize, group: &mut Vec<DueCall>) -> Poll<Taken> {
    let Some(queue) = queue.upgrade() else {
        return Poll::Ready(Taken::Nothing);
    };
    let mut due = queue.lock();
    while group.len() < queue.most.get() {
        match due.calls.pop_front() {
            Some(DueWork::Call(call)) => group.push(call),
            Some(DueWork::Alone(job)) if group.is_empty() => {
                return Poll::Ready(Taken::Alone(job));
            }
            Some(job) => {
                due.calls.push_front(job);
                break;
            }
            None => break,
        }
    }
    due.idle[lane] = group.is_empty();
    match due.idle[lane] {
        true => Poll::Pending,
        false => Poll::Ready(Taken::Group),
    }
}

/// Makes these calls together. Calls `hangs` if that takes long.
async fn make_group(group: &mut Vec<DueCall>, alarm: &mut Alarm, hangs: impl FnOnce()) {
    let Some(first) = group.first() else { return };
    let provider = Arc::clone(&first.provider);
    let name = first.name;
    let mut watches = Vec::new();
    let calls = group.drain(..).map(|due| {
        watches.extend(due.watch);
        due.call
    });
    let calls = calls.collect();
    let tell = watches.iter().filter(|watch| watch.tells_sent);
    let tell: Vec<_> = tell.map(|watch| Weak::clone(&watch.caller)).collect();
    let sent = (!tell.is_empty()).then_some(|exactly| {
        for caller in tell.iter().filter_map(Weak::upgrade) {
            survive(|| caller.sent(exactly));
        }
    });
    let made = measured(name, "call", async { provider.call_all(calls).await });
    // A group that panics has dropped its calls, which are answered by that.
    let _ = in_time(watched(made, sent), &mut watches, alarm, hangs).await;
    survive(|| drop(provider));
    watches.retain(|watch| watch.caller.strong_count() > 0);
    if !watches.is_empty() {
        spawn_beside(watch_on(watches));
    }
}

/// Waits for the group, and tells the calls that are not answered in time.
async fn in_time<T>(
    made: impl Future<Output = T>,
    watches: &mut Vec<Watch>,
    alarm: &mut Alarm,
    hangs: impl FnOnce(),
) -> T {
    let mut made = pin!(made);
    let (hangs_at, mut hangs) = (Timestamp::now() + PATIENCE, Some(hangs));
    let soonest = |watches: &[Watch], hangs: bool| {
        let ends = watches.iter().map(|watch| watch.until);
        ends.chain(hangs.then_some(hangs_at)).min()
    };
    let mut next = soonest(watches, true);
    poll_fn(|context| {
        if let Poll::Ready(output) = made.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        while let Some(at) = next
            && alarm.poll_at(at, context).is_ready()
        {
            if hangs_at.has_passed()
                && let Some(hangs) = hangs.take()
            {
                hangs();
            }
            watches.retain(Watch::is_in_time);
            next = soonest(watches, hangs.is_some());
        }
        Poll::Pending
    })
    .await
}

/// Does the same for what the provider goes on with beside its next groups.
async fn watch_on(mut watches: Vec<Watch>) {
    while let Some(next) = watches.iter().map(|watch| watch.until).min() {
        tokio::time::sleep(next.remaining()).await;
        watches.retain(Watch::is_in_time);
    }
}
