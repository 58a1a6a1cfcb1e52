//! Which keys a provider uses. Two names may share a key, and a session would take it twice.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bounds::Bounds;
use crate::LockError;

/// The keys in use. One whose lock may or may not be held comes with why nobody knows.
type InUse<K> = HashMap<K, Option<LockError>>;

/// The keys that a provider uses.
pub(super) struct Reservations<K>(Mutex<InUse<K>>);

/// A key that nobody else in this provider uses.
pub(super) struct Reservation<K: Copy + Eq + Hash> {
    all: Arc<Reservations<K>>,
    pub(super) key: K,
}

impl<K: Copy + Eq + Hash> Reservations<K> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Takes a key that nobody uses.
    ///
    /// # Errors
    ///
    /// `None` if a lock with this key is held or asked for; else why it cannot be asked for now.
    pub(super) fn take(
        self: &Arc<Self>,
        key: K,
        bounds: &Bounds,
    ) -> Result<Reservation<K>, Option<LockError>> {
        let mut in_use = self.lock();
        if let Some(unconfirmed) = in_use.get(&key) {
            return Err(unconfirmed.clone());
        }
        if in_use.len() >= bounds.most_locks() {
            return Err(Some(bounds.no_lock()));
        }
        in_use.insert(key, None);
        Ok(Reservation {
            all: Arc::clone(self),
            key,
        })
    }

    fn lock(&self) -> MutexGuard<'_, InUse<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Reservation<K> {
    /// Notes why nobody knows whether the server holds this lock for us.
    pub(super) fn mark_unconfirmed(&self, why: &LockError) {
        self.all.lock().insert(self.key, Some(why.clone()));
    }
}

impl<K: Copy + Eq + Hash> Drop for Reservation<K> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
    }
}
