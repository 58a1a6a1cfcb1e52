//! A value that is set once, and tasks that wait for it.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

#[derive(Debug)]
pub(crate) struct Signal<T> {
    value: OnceLock<T>,
    set: Arc<Notify>,
}

impl<T> Signal<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: OnceLock::new(),
            set: Arc::default(),
        }
    }

    /// Sets the value, unless there is one, and wakes everybody.
    pub(crate) fn set(&self, value: T) -> bool {
        let first = self.value.set(value).is_ok();
        if first {
            self.set.notify_waiters();
        }
        first
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Resolves at the first [`set`](Self::set) after this call. Look at the value after it was
    /// made, and again when it resolves.
    pub(crate) fn notified(&self) -> OwnedNotified {
        self.set.clone().notified_owned()
    }

    pub(crate) async fn wait(&self) -> &T {
        loop {
            // Subscribed as soon as it is made: a `set` between the two lines is not missed.
            let notified = self.set.notified();
            if let Some(value) = self.get() {
                return value;
            }
            notified.await;
        }
    }
}
