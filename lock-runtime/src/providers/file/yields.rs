//! Letting another process have a lock that was released.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Timestamp;

/// No waiter looks less often than this.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// How long after a waiter of another process said it would look again it may still come.
const SLACK: Duration = Duration::from_millis(2);

/// By file, until when this process leaves a lock that it has released to a waiter of another one.
/// Without that, a process that releases and asks again would always be faster than those that
/// only look now and then.
#[derive(Default)]
pub(super) struct Yields(Mutex<HashMap<String, Timestamp>>);

impl Yields {
    /// Returns until when the lock is left to another process, once.
    pub(super) fn take(&self, file_name: &str) -> Option<Timestamp> {
        self.lock().remove(file_name)
    }

    /// Says whether the lock is left to another process at present.
    pub(super) fn leaves(&self, file_name: &str) -> bool {
        let yields = self.lock();
        yields
            .get(file_name)
            .is_some_and(|until| !until.has_passed())
    }

    /// Leaves the lock to the waiter that will look at that time, and forgets those that are over,
    /// so that there are only ever a few.
    pub(super) fn add(&self, file_name: &str, next_look: Option<Timestamp>) {
        let now = Timestamp::now();
        // A note that was left before the machine was started again may name any time.
        let next_look = next_look.filter(|at| *at > now && *at <= now + LONGEST_PAUSE);
        if let Some(next_look) = next_look {
            let mut yields = self.lock();
            yields.retain(|_, until| !until.has_passed());
            yields.insert(file_name.to_owned(), next_look + SLACK);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
