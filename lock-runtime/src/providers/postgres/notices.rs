//! The waiters for notices on a session, and which notice belongs to which of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::key::Keys;

/// The waiters of a session, by the key that they are seen by.
#[derive(Default)]
pub(super) struct Notices(Mutex<HashMap<i64, Arc<Notify>>>);

impl Notices {
    /// Returns where notices of this lock's release arrive from now on.
    pub(super) fn subscribe(&self, keys: Keys) -> Arc<Notify> {
        let notices = Arc::new(Notify::new());
        self.lock().insert(keys.waiters, Arc::clone(&notices));
        notices
    }

    /// Ends a subscription; false if another waiter has subscribed meanwhile.
    pub(super) fn unsubscribe(&self, keys: Keys, notices: &Arc<Notify>) -> bool {
        let mut waiters = self.lock();
        let are_mine = waiters
            .get(&keys.waiters)
            .is_some_and(|known| Arc::ptr_eq(known, notices));
        are_mine && waiters.remove(&keys.waiters).is_some()
    }

    /// Tells whoever waits for the notice that has come on this channel.
    pub(super) fn arrived(&self, channel: &str) {
        let waiter = Keys::of_channel(channel).and_then(|key| {
            let waiters = self.lock();
            waiters.get(&key).map(Arc::clone)
        });
        if let Some(waiter) = waiter {
            waiter.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
