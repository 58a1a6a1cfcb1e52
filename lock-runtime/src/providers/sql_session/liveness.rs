//! Until when a session lives, and whose locks are lost by its end.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::provider::LossReporter;
use crate::signal::Signal;
use crate::wake::survive;

/// What the task that drives a connection shares with the session. `K` tells locks apart.
pub(crate) struct Liveness<K> {
    ended: Signal<End>,
    /// The locks that the session holds, each with whom its loss is reported to.
    locks: Mutex<HashMap<K, LossReporter>>,
}

struct End {
    why: Arc<str>,
    /// The server has ended the session, or a connection that worked told it to.
    known_to_server: bool,
}

impl<K: Eq + Hash> Liveness<K> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ended: Signal::new(),
            locks: Mutex::default(),
        })
    }

    /// Makes the end of the session the loss of this lock from now on; false if it has ended.
    pub(super) fn add_lock(&self, key: K, loss: LossReporter) -> bool {
        let mut locks = self.locks();
        // Looked at under the lock that whoever ends the session takes afterwards.
        let alive = !self.has_ended();
        if alive {
            locks.insert(key, loss);
        }
        alive
    }

    /// Makes the end of the session no loss of this lock any more.
    pub(super) fn remove_lock(&self, key: &K) {
        self.locks().remove(key);
    }

    /// Says whether the end of the session would be the loss of no lock.
    pub(super) fn has_no_locks(&self) -> bool {
        self.locks().is_empty()
    }

    /// Gives the session up, and with it all of its locks. It is not sure that the server hears
    /// of it.
    pub(crate) fn end(&self, why: &str) {
        self.set_end(why, false);
    }

    /// Notes that the server has ended the session.
    pub(crate) fn end_by_server(&self, why: &str) {
        self.set_end(why, true);
    }

    fn set_end(&self, why: &str, known_to_server: bool) {
        let end = End {
            why: why.into(),
            known_to_server,
        };
        if self.ended.set(end) {
            let locks = std::mem::take(&mut *self.locks());
            for loss in locks.into_values() {
                // A report wakes whoever waits for it, which may panic; the others must hear of
                // the loss all the same.
                survive(|| loss.report(why));
            }
        }
    }

    /// Says whether the session has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Returns why the session has ended, if it has.
    pub(super) fn why_ended(&self) -> Option<&str> {
        self.ended.get().map(|end| &*end.why)
    }

    /// Waits until the session has ended, and says whether the server knows that.
    pub(crate) async fn ended(&self) -> bool {
        self.ended.wait().await.known_to_server
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<K, LossReporter>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
