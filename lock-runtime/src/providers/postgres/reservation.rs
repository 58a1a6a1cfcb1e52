//! Which keys this provider uses. Two names may share a key, and a session would take it twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bounds::Bounds;
use super::key::{AdvisoryKey, Keys};
use crate::LockError;

/// The keys in use, each with why it is not known whether it is held, if it is not.
#[derive(Default)]
pub(super) struct Reservations(Mutex<HashMap<AdvisoryKey, Option<LockError>>>);

/// A key that nobody else in this provider uses.
pub(super) struct Reservation {
    all: Arc<Reservations>,
    pub(super) keys: Keys,
}

impl Reservations {
    /// Takes a key that nobody uses; else why not, if it is not that somebody is known to.
    pub(super) fn take(
        self: &Arc<Self>,
        keys: Keys,
        bounds: &Bounds,
    ) -> Result<Reservation, Option<LockError>> {
        let mut taken = self.lock();
        if let Some(doubt) = taken.get(&keys.lock) {
            return Err(doubt.clone());
        }
        if taken.len() >= bounds.most_locks() {
            return Err(Some(bounds.no_lock()));
        }
        taken.insert(keys.lock, None);
        Ok(Reservation {
            all: Arc::clone(self),
            keys,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AdvisoryKey, Option<LockError>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The server may or may not hold it, and this is why nobody knows.
    pub(super) fn doubt(&self, why: &LockError) {
        self.all.lock().insert(self.keys.lock, Some(why.clone()));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.all.lock().remove(&self.keys.lock);
    }
}
