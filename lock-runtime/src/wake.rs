//! Wakes tasks, and runs other code of users and providers, which may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Wakes all tasks, even if a waker panics. The caller must not hold a lock, since a waker may run
/// any code.
pub(crate) fn all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        one(waker);
    }
}

/// Wakes one task, and survives a panic of its waker.
pub(crate) fn one(waker: Waker) {
    survive(|| waker.wake());
}

/// Runs code of users and providers, such as wakers and destructors, and catches a panic in it.
///
/// A panic must not end a background thread, nor keep a job from its end. The panic hook has
/// reported it already.
pub(crate) fn survive(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}
