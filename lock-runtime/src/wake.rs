//! Wakes tasks, and runs other code of users and providers that may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Wakes each by itself: a waker that panics keeps nobody else from being woken. Not to be called
/// under a lock, since a waker may run anything.
pub(crate) fn all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        one(waker);
    }
}

/// Wakes one, whatever comes of it.
pub(crate) fn one(waker: Waker) {
    survive(|| waker.wake());
}

/// What runs code of users and providers, such as their wakers and destructors: a panic in it must
/// not end the background thread, nor keep a job from its end. The panic hook has said it already.
pub(crate) fn survive(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}
