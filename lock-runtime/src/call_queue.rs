//! `CallQueue`: the calls of one provider that are due, and the tasks that make them in groups.
//!
//! A call that finds a task idle is made at once. What becomes due while all tasks are busy goes
//! together, as soon as one is done. So nothing waits for company, and under load groups grow.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use once_cell::sync::Lazy;

use crate::background;
use crate::call::measured;
use crate::clock::Timestamp;
use crate::future::{BoxFuture, First, select};
use crate::provider::{Call, LockProvider, LockSpace};
use crate::sending;
use crate::wake::survive;

/// How many groups are under way at once: while the answers to one are read, the server works on
/// the other.
const LANES: usize = 2;
/// A group that takes longer does not hold up the next ones any more.
const PATIENCE: Duration = Duration::from_millis(50);

/// The calls that are due for one provider and its clones.
pub(crate) struct CallQueue {
    most: NonZeroUsize,
    due: Mutex<Due>,
}

#[derive(Default)]
struct Due {
    calls: VecDeque<DueCall>,
    /// The wakers of the tasks that have nothing to do.
    idle: [Option<Waker>; LANES],
    /// Whether the tasks were started.
    started: bool,
}

/// A call that is due.
pub(crate) struct DueCall {
    /// The provider that makes it, or a clone of it.
    pub(crate) provider: Arc<dyn LockProvider>,
    /// The provider's name, for the log.
    pub(crate) name: &'static str,
    pub(crate) call: Call,
    pub(crate) limit: Option<Limit>,
    /// Who waits until the call has been handed to the connection, and not for its answer.
    pub(crate) sent: Option<Arc<dyn Sent>>,
}

/// When a call is overdue, and what is told then.
pub(crate) type Limit = (Timestamp, Arc<dyn Overdue>);

/// A call that others do not wait for beyond some moment.
pub(crate) trait Overdue: Send + Sync {
    /// Has others go on. If the call was answered before, it does nothing.
    fn overdue(&self);
}

/// A call whose answer nobody waits for.
pub(crate) trait Sent: Send + Sync {
    /// Has the caller go on. If the call was answered before, it does nothing. What is asked for in
    /// the lock space from now on is carried out later.
    fn sent(&self, in_order: Option<LockSpace>);
}

/// The queues of providers that have clones.
static QUEUES: Lazy<Mutex<HashMap<LockSpace, Weak<CallQueue>>>> = Lazy::new(Mutex::default);

impl CallQueue {
    /// Returns the queue of a provider; of all its clones, if it says what they have in common.
    pub(crate) fn of(clones: Option<LockSpace>, most: NonZeroUsize) -> Arc<Self> {
        let make = || {
            Arc::new(Self {
                most,
                due: Mutex::default(),
            })
        };
        let Some(clones) = clones else {
            return make();
        };
        let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&clones).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = make();
        queues.insert(clones, Arc::downgrade(&queue));
        queue
    }

    /// Adds a call. Returns the waker of a task that is idle, to be woken when no lock is held.
    pub(crate) fn push(self: &Arc<Self>, call: DueCall) -> Option<Waker> {
        let mut due = self.lock();
        due.calls.push_back(call);
        if !std::mem::replace(&mut due.started, true) {
            for lane in 0..LANES {
                background::spawn(make_calls(Arc::downgrade(self), lane, self.most));
            }
        }
        due.idle.iter_mut().find_map(Option::take)
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallQueue {
    fn drop(&mut self) {
        let due = self.due.get_mut().unwrap_or_else(PoisonError::into_inner);
        for waker in due.idle.iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }
}

/// Makes the calls that are due, a group at a time, until the queue is gone.
fn make_calls(queue: Weak<CallQueue>, lane: usize, most: NonZeroUsize) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut group = Vec::new();
        let mut hung = false;
        while !hung && poll_fn(|context| take_due(&queue, lane, most, &mut group, context)).await {
            let hangs = || {
                // What becomes due meanwhile must not wait for a group that hangs.
                hung = true;
                background::spawn(make_calls(Weak::clone(&queue), lane, most));
            };
            make_group(&mut group, hangs).await;
        }
    })
}

/// Takes what is due. False if nothing can become due any more.
fn take_due(
    queue: &Weak<CallQueue>,
    lane: usize,
    most: NonZeroUsize,
    group: &mut Vec<DueCall>,
    context: &Context<'_>,
) -> Poll<bool> {
    let Some(queue) = queue.upgrade() else {
        return Poll::Ready(false);
    };
    let mut due = queue.lock();
    if due.calls.is_empty() {
        due.idle[lane] = Some(context.waker().clone());
        return Poll::Pending;
    }
    let count = due.calls.len().min(most.get());
    group.extend(due.calls.drain(..count));
    Poll::Ready(true)
}

/// Makes these calls together. Calls `hangs` if that takes long.
async fn make_group(group: &mut Vec<DueCall>, hangs: impl FnOnce()) {
    let Some(first) = group.first() else { return };
    let provider = Arc::clone(&first.provider);
    let name = first.name;
    let (mut limits, mut unconfirmed) = (Vec::new(), Vec::new());
    let calls = group.drain(..).map(|due| {
        limits.extend(due.limit);
        unconfirmed.extend(due.sent);
        due.call
    });
    let calls = calls.collect();
    let made = measured(name, "call", async { provider.call_all(calls).await });
    let any = !unconfirmed.is_empty();
    let are_sent = any.then_some(move |in_order| {
        for call in unconfirmed {
            call.sent(in_order);
        }
    });
    let made = sending::watched(made, are_sent);
    // A group that panics has dropped its calls, which are answered by that.
    let _ = watched(made, limits, hangs).await;
    survive(|| drop(provider));
}

/// Waits for the group, and tells the calls that are not answered in time.
async fn watched<T>(
    made: impl Future<Output = T>,
    mut limits: Vec<Limit>,
    hangs: impl FnOnce(),
) -> T {
    let mut made = pin!(made);
    let (hangs_at, mut hangs) = (Timestamp::now() + PATIENCE, Some(hangs));
    loop {
        let soonest = limits.iter().map(|(at, _)| *at);
        let Some(next) = soonest.chain(hangs.as_ref().map(|_| hangs_at)).min() else {
            return made.await;
        };
        match select(made.as_mut(), tokio::time::sleep(next.remaining())).await {
            First::Left(output) => return output,
            First::Right(()) => {
                hangs = hangs.and_then(|hangs| match hangs_at.has_passed() {
                    true => {
                        hangs();
                        None
                    }
                    false => Some(hangs),
                });
                limits.retain(|(at, call)| {
                    let in_time = !at.has_passed();
                    if !in_time {
                        call.overdue();
                    }
                    in_time
                });
            }
        }
    }
}
