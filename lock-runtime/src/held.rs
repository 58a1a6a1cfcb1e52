//! What the task that is being polled holds through the attribute: a stack, pushed around each
//! poll of a body.
//!
//! It is exact without a task-local scope: siblings under `join!` are polled one after another and
//! not inside each other, and a spawned task is polled on a stack of its own.

use std::cell::RefCell;
use std::sync::Arc;

use tokio::task;

use crate::gate::Slot;

thread_local! {
    /// The slot, and the task that is being polled. A body may drive a runtime or a set of tasks of
    /// its own, and what those do is not its doing.
    static HELD: RefCell<Vec<(usize, Option<task::Id>)>> = const { RefCell::new(Vec::new()) };
}

/// Pops when dropped, and so when the body panics.
pub(crate) struct Entered(bool);

pub(crate) fn enter(slot: &Arc<Slot>) -> Entered {
    let entry = (address(slot), task::try_id());
    // A destructor of the thread's own data may poll a body when this data is gone.
    Entered(HELD.try_with(|held| held.borrow_mut().push(entry)).is_ok())
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0 {
            let _ = HELD.try_with(|held| held.borrow_mut().pop());
        }
    }
}

/// Whether the task that is being polled holds this lock by a body around this poll.
pub(crate) fn holds(slot: &Arc<Slot>) -> bool {
    HELD.try_with(|held| {
        let held = held.borrow();
        // Asked only if there is anything to compare with.
        !held.is_empty() && held.contains(&(address(slot), task::try_id()))
    })
    .unwrap_or(false)
}

fn address(slot: &Arc<Slot>) -> usize {
    Arc::as_ptr(slot).addr()
}
