//! Which locks the task that is being polled holds, to find a task that would wait for itself.
//!
//! Each thread has a stack of the bodies that are being polled on it. This is exact without a
//! task-local scope. Siblings under `join!` are polled one after another and not inside each other,
//! and a spawned task is told apart by its id.

use std::cell::RefCell;

use tokio::task;

thread_local! {
    /// For each body, the address of its lock and the task that is being polled. The task counts,
    /// since a body may drive a runtime or a set of tasks of its own, which hold nothing.
    static HELD: RefCell<Vec<(usize, Option<task::Id>)>> = const { RefCell::new(Vec::new()) };
}

/// Says until it is dropped that a body is being polled. A panic of the body drops it too.
pub(crate) struct Polling(bool);

/// Notes that a body which holds the lock at this address is being polled from now on.
pub(crate) fn enter(lock: usize) -> Polling {
    let entry = (lock, task::try_id());
    // It fails while the thread ends, when a destructor of other thread-local data polls a body.
    Polling(HELD.try_with(|held| held.borrow_mut().push(entry)).is_ok())
}

impl Drop for Polling {
    fn drop(&mut self) {
        if self.0 {
            let _ = HELD.try_with(|held| held.borrow_mut().pop());
        }
    }
}

/// Tells whether the task that is being polled holds the lock at this address: whether this poll is
/// made inside the poll of a body that holds it.
pub(crate) fn holds(lock: usize) -> bool {
    HELD.try_with(|held| {
        let held = held.borrow();
        // The id is read only if there is an entry to compare with.
        !held.is_empty() && held.contains(&(lock, task::try_id()))
    })
    .unwrap_or(false)
}
