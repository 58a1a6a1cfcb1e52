//! What the task that is being polled holds through the attribute: a stack, pushed around each
//! poll of a body.
//!
//! It is exact without a task-local scope: siblings under `join!` are polled one after another and
//! not inside each other, and a spawned task is polled on a stack of its own.

use std::cell::RefCell;
use std::sync::Arc;

use crate::gate::Slot;

thread_local! {
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Pops when dropped, and so when the body panics.
pub(crate) struct Entered(());

pub(crate) fn enter(slot: &Arc<Slot>) -> Entered {
    HELD.with_borrow_mut(|held| held.push(address(slot)));
    Entered(())
}

impl Drop for Entered {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| held.pop());
    }
}

/// Whether a body that holds this lock is being polled by the present thread.
pub(crate) fn holds(slot: &Arc<Slot>) -> bool {
    // A thread-local destructor may come after this one's.
    HELD.try_with(|held| held.borrow().contains(&address(slot)))
        .unwrap_or(false)
}

fn address(slot: &Arc<Slot>) -> usize {
    Arc::as_ptr(slot).addr()
}
