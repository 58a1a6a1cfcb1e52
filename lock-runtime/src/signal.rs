//! `Signal`: a value that is set once, and the tasks that wait for it.
//!
//! `tokio::sync::SetOnce` is the same but for one thing: a waker of a user that panics leaves its
//! `set`, and the tasks that were to be woken after it are not.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::wake;

/// A value that is set once, and the tasks that wait for it.
pub(crate) struct Signal<T> {
    value: OnceLock<T>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// A task's place at a signal, for [`Signal::poll`] and [`Signal::forget`].
#[derive(Default)]
pub(crate) struct Place(Option<u64>);

impl<T> Signal<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: OnceLock::new(),
            waiting: Mutex::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the value, unless there is one, and wakes all tasks that wait. True if it set the
    /// value.
    pub(crate) fn set(&self, value: T) -> bool {
        let first = self.value.set(value).is_ok();
        if first {
            let wakers = std::mem::take(&mut self.waiting().wakers);
            wake::all(wakers.into_values());
        }
        first
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Returns the value, or wakes this task when it is set.
    pub(crate) fn poll(&self, place: &mut Place, context: &Context<'_>) -> Poll<&T> {
        if let Some(value) = self.value.get() {
            return Poll::Ready(value);
        }
        // Cloned before the lock and dropped after it, since both may run the user's code.
        let waker = context.waker().clone();
        let mut waiting = self.waiting();
        let key = *place.0.get_or_insert_with(|| {
            waiting.last += 1;
            waiting.last
        });
        let replaced = waiting.wakers.insert(key, waker);
        drop(waiting);
        drop(replaced);
        // The value may have been set meanwhile, too early for this waker to be woken.
        match self.value.get() {
            Some(value) => Poll::Ready(value),
            None => Poll::Pending,
        }
    }

    /// Gives a place back. Its task is not woken any more.
    pub(crate) fn forget(&self, place: &mut Place) {
        if let Some(key) = place.0.take() {
            let waker = self.waiting().wakers.remove(&key);
            drop(waker);
        }
    }

    /// Waits for the value.
    pub(crate) async fn wait(&self) -> &T {
        let mut waits = Waits(self, Place::default());
        poll_fn(|context| self.poll(&mut waits.1, context)).await
    }
}

/// Gives its place back when it is dropped.
struct Waits<'a, T>(&'a Signal<T>, Place);

impl<T> Drop for Waits<'_, T> {
    fn drop(&mut self) {
        self.0.forget(&mut self.1);
    }
}

impl<T: fmt::Debug> fmt::Debug for Signal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signal").field(&self.value.get()).finish()
    }
}
