//! Which locks the task that is being polled holds, to find a task that would wait for itself.
//!
//! Each thread has a stack of the bodies that are being polled on it. This is exact without a
//! task-local scope. Siblings under `join!` are polled one after another and not inside each other,
//! and a spawned task is told apart by its id.

use std::cell::RefCell;
use std::num::NonZeroU32;

use tokio::task;

use crate::provider::LockMode;

thread_local! {
    /// What each body holds.
    static HELD: RefCell<Vec<Body>> = const { RefCell::new(Vec::new()) };
}

/// A body that is being polled.
struct Body {
    /// The address of its lock.
    lock: usize,
    /// The task that is being polled. It counts, since a body may drive a runtime or a set of tasks
    /// of its own, which hold nothing.
    task: Option<task::Id>,
    holding: Holding,
}

/// What a body holds of its lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// All of it.
    Alone,
    /// A place beside other readers.
    Reading,
    /// So many permits.
    Permits(NonZeroU32),
}

/// What the task that is being polled holds of one lock, through all its bodies.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) alone: bool,
    pub(crate) reading: bool,
    pub(crate) permits: u64,
}

impl Held {
    /// Tells whether the task would wait for itself if it wanted this of the lock, too. A reader may
    /// read once more, beside what it has.
    pub(crate) fn is_in_the_way_of(&self, mode: LockMode) -> bool {
        match mode {
            LockMode::Read => self.alone,
            LockMode::Exclusive | LockMode::Write | LockMode::Upgradeable => {
                self.alone || self.reading
            }
            LockMode::Permits { limit, take } => {
                let wanted = self.permits + u64::from(take.get());
                self.permits > 0 && wanted > u64::from(limit.get())
            }
        }
    }
}

/// Says until it is dropped that a body is being polled. A panic of the body drops it too.
pub(crate) struct Polling(bool);

/// Notes that a body which holds this of the lock at this address is being polled from now on.
pub(crate) fn enter(lock: usize, holding: Holding) -> Polling {
    let body = Body {
        lock,
        task: task::try_id(),
        holding,
    };
    // It fails while the thread ends, when a destructor of other thread-local data polls a body.
    Polling(HELD.try_with(|held| held.borrow_mut().push(body)).is_ok())
}

impl Drop for Polling {
    fn drop(&mut self) {
        if self.0 {
            let _ = HELD.try_with(|held| held.borrow_mut().pop());
        }
    }
}

/// Does the same as [`Polling`] for a body that holds several locks: so many.
pub(crate) struct PollingSeveral(usize);

/// Notes that a body which holds these locks is being polled from now on.
pub(crate) fn enter_several(holds: impl Iterator<Item = (usize, Holding)>) -> PollingSeveral {
    let task = task::try_id();
    let noted = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        let before = held.len();
        held.extend(holds.map(|(lock, holding)| Body {
            lock,
            task,
            holding,
        }));
        held.len() - before
    });
    PollingSeveral(noted.unwrap_or(0))
}

impl Drop for PollingSeveral {
    fn drop(&mut self) {
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            let left = held.len().saturating_sub(self.0);
            held.truncate(left);
        });
    }
}

/// Tells whether the task that is being polled holds the lock at this address: whether this poll is
/// made inside the poll of a body that holds it.
pub(crate) fn holds(lock: usize) -> bool {
    HELD.try_with(|held| {
        let held = held.borrow();
        // The id is read only if there is an entry to compare with.
        !held.is_empty() && {
            let task = task::try_id();
            held.iter()
                .any(|body| body.lock == lock && body.task == task)
        }
    })
    .unwrap_or(false)
}

/// Returns what the task that is being polled holds of the lock at this address.
pub(crate) fn held(lock: usize) -> Held {
    let mut sum = Held::default();
    let _ = HELD.try_with(|held| {
        let held = held.borrow();
        if held.is_empty() {
            return;
        }
        let task = task::try_id();
        for body in held.iter() {
            if body.lock != lock || body.task != task {
                continue;
            }
            match body.holding {
                Holding::Alone => sum.alone = true,
                Holding::Reading => sum.reading = true,
                Holding::Permits(take) => sum.permits += u64::from(take.get()),
            }
        }
    });
    sum
}
