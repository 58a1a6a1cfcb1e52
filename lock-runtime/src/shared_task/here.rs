//! What this thread does for shared tasks: on whose runtime it runs their steps, and which other
//! tasks these wake.

use std::cell::RefCell;
use std::mem;
use std::sync::Weak;

use tokio::runtime::Handle;

/// How many steps a thread runs in a row for what others have asked for meanwhile.
pub(super) const IN_A_ROW: usize = 4;

/// A shared task, whatever it does.
pub(crate) trait Run: Send + Sync {
    /// Runs a step on this thread.
    fn run_here(&self);

    /// Has the background task run a step soon.
    fn run_soon(&self);
}

type Tasks = Vec<Weak<dyn Run>>;

thread_local! {
    /// The runtime of the thread that runs a step, if it is another one than the step's.
    static CALLER: RefCell<Option<Handle>> = const { RefCell::new(None) };
    /// The tasks that were woken while this thread gathers them.
    static CHAIN: RefCell<Option<Tasks>> = const { RefCell::new(None) };
}

/// Returns the runtime of the thread that runs the step, if it has one of its own.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) fn caller() -> Option<Handle> {
    CALLER.try_with(|caller| caller.borrow().clone()).ok()?
}

/// Notes the runtime of this thread until it is dropped, since the step is run within another.
pub(super) struct Caller(bool);

impl Caller {
    pub(super) fn note(background: &Handle) -> Self {
        let noted = CALLER.try_with(|caller| {
            let mut caller = caller.borrow_mut();
            if caller.is_some() {
                return false;
            }
            *caller = Handle::try_current()
                .ok()
                .filter(|handle| handle.id() != background.id());
            caller.is_some()
        });
        Self(noted.unwrap_or(false))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.0 {
            let handle = CALLER.try_with(RefCell::take);
            drop(handle);
        }
    }
}

/// Runs a step of this task on this thread, and then those of the shared tasks that it wakes.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) fn run_chain(first: &dyn Run) {
    let chain = Chain::begin();
    first.run_here();
    // What these wake in turn comes in the next round.
    for _ in 0..IN_A_ROW {
        let woken = chain.take();
        if woken.is_empty() {
            break;
        }
        for task in woken.iter().filter_map(Weak::upgrade) {
            task.run_here();
        }
    }
}

/// Runs a task that was woken after the step that this thread is at. False if this thread does not
/// do that.
pub(super) fn run_next(task: &Weak<dyn Run>) -> bool {
    let pushed = CHAIN.try_with(|chain| {
        let mut chain = chain.borrow_mut();
        chain.as_mut().map(|woken| woken.push(Weak::clone(task)))
    });
    matches!(pushed, Ok(Some(())))
}

/// Has this thread gather the tasks that are woken, until it is dropped. Then the background thread
/// runs those that are left.
struct Chain;

impl Chain {
    fn begin() -> Self {
        let _ = CHAIN.try_with(|chain| chain.replace(Some(Vec::new())));
        Self
    }

    fn take(&self) -> Tasks {
        let woken = CHAIN.try_with(|chain| chain.borrow_mut().as_mut().map(mem::take));
        woken.ok().flatten().unwrap_or_default()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let left = CHAIN.try_with(RefCell::take).ok().flatten();
        for task in left.iter().flatten().filter_map(Weak::upgrade) {
            task.run_soon();
        }
    }
}
