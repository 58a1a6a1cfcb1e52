//! Which keys this provider uses. Two names may share a key, and a session would take it twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::AdvisoryKey;
use crate::LockError;

/// The keys in use, each with why it is not known whether it is held, if it is not.
#[derive(Default)]
pub(super) struct Reservations(Mutex<HashMap<AdvisoryKey, Option<LockError>>>);

/// A key that nobody else in this provider uses.
pub(super) struct Reservation {
    all: Arc<Reservations>,
    pub(super) key: AdvisoryKey,
}

impl Reservations {
    pub(super) fn take(
        self: &Arc<Self>,
        key: AdvisoryKey,
    ) -> Result<Reservation, Option<LockError>> {
        let mut keys = self.lock();
        if let Some(doubt) = keys.get(&key) {
            return Err(doubt.clone());
        }
        keys.insert(key, None);
        Ok(Reservation {
            all: Arc::clone(self),
            key,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AdvisoryKey, Option<LockError>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The server may or may not hold it, and this is why nobody knows.
    pub(super) fn doubt(&self, why: &LockError) {
        self.all.lock().insert(self.key, Some(why.clone()));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
    }
}
