//! The waiters for notices on a session, and which notice belongs to which of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::Keys;
use super::sql::AFTER_EXCLUSIVE;
use crate::providers::sql_session::Notices;

/// The waiters of a session, by the key that they are seen by.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<i64, Arc<Notices>>>);

impl Waiters {
    /// Returns where notices of this lock's release arrive from now on.
    pub(super) fn subscribe(&self, keys: Keys) -> Arc<Notices> {
        let notices = Arc::new(Notices::default());
        self.lock().insert(keys.waiters, Arc::clone(&notices));
        notices
    }

    /// Ends a subscription; false if another waiter has subscribed meanwhile.
    pub(super) fn unsubscribe(&self, keys: Keys, notices: &Arc<Notices>) -> bool {
        let mut waiters = self.lock();
        let are_mine = waiters
            .get(&keys.waiters)
            .is_some_and(|known| Arc::ptr_eq(known, notices));
        are_mine && waiters.remove(&keys.waiters).is_some()
    }

    /// Tells whoever waits for the notice that has come on this channel, and says this.
    pub(super) fn arrived(&self, channel: &str, says: &str) {
        let waiter = Keys::of_channel(channel).and_then(|key| {
            let waiters = self.lock();
            waiters.get(&key).map(Arc::clone)
        });
        if let Some(waiter) = waiter {
            waiter.arrive(says == AFTER_EXCLUSIVE);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Arc<Notices>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
