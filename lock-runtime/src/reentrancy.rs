//! What the task that is being polled holds through the attribute: a stack, pushed around each
//! poll of a body.
//!
//! It is exact without a task-local scope: siblings under `join!` are polled one after another and
//! not inside each other, and a spawned task is polled on a stack of its own.

use std::cell::RefCell;

use tokio::task;

thread_local! {
    /// The address of the lock, and the task that is being polled. A body may drive a runtime or a
    /// set of tasks of its own, and what those do is not its doing.
    static HELD: RefCell<Vec<(usize, Option<task::Id>)>> = const { RefCell::new(Vec::new()) };
}

/// Says that a body is being polled, until it is dropped: also when the body panics.
pub(crate) struct Polling(bool);

/// Says that the body of whoever holds the lock at this address is polled from here on.
pub(crate) fn enter(lock: usize) -> Polling {
    let entry = (lock, task::try_id());
    // A destructor of the thread's own data may poll a body when this data is gone.
    Polling(HELD.try_with(|held| held.borrow_mut().push(entry)).is_ok())
}

impl Drop for Polling {
    fn drop(&mut self) {
        if self.0 {
            let _ = HELD.try_with(|held| held.borrow_mut().pop());
        }
    }
}

/// Whether the task that is being polled holds the lock at this address, by a body around this
/// poll.
pub(crate) fn holds(lock: usize) -> bool {
    HELD.try_with(|held| {
        let held = held.borrow();
        // Asked only if there is anything to compare with.
        !held.is_empty() && held.contains(&(lock, task::try_id()))
    })
    .unwrap_or(false)
}
