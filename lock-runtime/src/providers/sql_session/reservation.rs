//! Which keys a provider uses, and on which sessions. A session would take its own lock twice, and
//! two names may share a key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bounds::Bounds;
use super::traits::Access;
use crate::LockError;

/// The keys that a provider uses.
pub(super) struct Reservations<K>(Mutex<State<K>>);

struct State<K> {
    in_use: HashMap<K, Vec<Use>>,
    /// How many uses there are of all keys.
    count: usize,
    last: u64,
}

/// One use of a key: a lock that is held, or is being asked for.
struct Use {
    number: u64,
    access: Access,
    /// The session that has the lock or is asked for it; zero before one was chosen.
    session: usize,
    /// Why nobody knows whether the lock is held.
    unconfirmed: Option<LockError>,
}

/// A use of a key that this provider makes, until it is dropped.
pub(super) struct Reservation<K: Copy + Eq + Hash> {
    all: Arc<Reservations<K>>,
    pub(super) key: K,
    pub(super) access: Access,
    number: u64,
}

impl<K: Copy + Eq + Hash> Reservations<K> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            in_use: HashMap::new(),
            count: 0,
            last: 0,
        })))
    }

    /// Takes a key, unless this provider has it exclusively. Whoever wants it exclusively may wait
    /// for those who share it.
    ///
    /// # Errors
    ///
    /// `None` if a lock with this key is held or asked for; else why it cannot be asked for now.
    pub(super) fn take(
        self: &Arc<Self>,
        key: K,
        access: Access,
        bounds: &Bounds,
    ) -> Result<Reservation<K>, Option<LockError>> {
        self.take_unless(key, access, bounds, |other| {
            other.access == Access::Exclusive
        })
    }

    /// Takes a key exclusively for a session that shares it. Whoever wants it exclusively besides
    /// waits for that session.
    pub(super) fn take_upgrade(
        self: &Arc<Self>,
        key: K,
        bounds: &Bounds,
    ) -> Result<Reservation<K>, Option<LockError>> {
        self.take_unless(key, Access::Exclusive, bounds, |_| false)
    }

    /// Takes a key, unless another use of it is in the way.
    fn take_unless(
        self: &Arc<Self>,
        key: K,
        access: Access,
        bounds: &Bounds,
        is_in_the_way: impl Fn(&Use) -> bool,
    ) -> Result<Reservation<K>, Option<LockError>> {
        let mut state = self.lock();
        let uses = state.in_use.get(&key).map_or(&[][..], Vec::as_slice);
        if let Some(unconfirmed) = uses.iter().find_map(|other| other.unconfirmed.as_ref()) {
            return Err(Some(unconfirmed.clone()));
        }
        if uses.iter().any(is_in_the_way) {
            return Err(None);
        }
        if state.count >= bounds.most_locks() {
            return Err(Some(bounds.no_lock()));
        }
        Ok(state.insert(self, key, access))
    }

    /// Takes a key whose lock is now held; `None` if this provider has it already.
    pub(super) fn add(self: &Arc<Self>, key: K) -> Option<Reservation<K>> {
        let mut state = self.lock();
        (!state.in_use.contains_key(&key)).then(|| state.insert(self, key, Access::Exclusive))
    }

    /// Says of a key that nobody knows what is held of it, whoever else uses it.
    pub(super) fn doubt(self: &Arc<Self>, key: K, why: &LockError) -> Reservation<K> {
        let reservation = self.lock().insert(self, key, Access::Shared);
        reservation.mark_unconfirmed(why);
        reservation
    }

    /// Says whether so many more locks may be held or asked for.
    pub(super) fn have_room(&self, locks: usize, bounds: &Bounds) -> bool {
        self.lock().count.saturating_add(locks) <= bounds.most_locks()
    }

    /// Leaves out the keys that this provider uses.
    pub(super) fn retain_unused(&self, keys: &mut Vec<K>) {
        let state = self.lock();
        keys.retain(|key| !state.in_use.contains_key(key));
    }

    /// Returns the sessions that have a lock with this key, or are asked for it.
    pub(super) fn sessions_of(&self, key: &K) -> Vec<usize> {
        let state = self.lock();
        let uses = state.in_use.get(key).into_iter().flatten();
        let sessions = uses.map(|other| other.session);
        sessions.filter(|session| *session != 0).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> State<K> {
    fn insert(&mut self, all: &Arc<Reservations<K>>, key: K, access: Access) -> Reservation<K> {
        self.count += 1;
        self.last += 1;
        let number = self.last;
        self.in_use.entry(key).or_default().push(Use {
            number,
            access,
            session: 0,
            unconfirmed: None,
        });
        Reservation {
            all: Arc::clone(all),
            key,
            access,
            number,
        }
    }
}

impl<K: Copy + Eq + Hash> Reservation<K> {
    /// Returns the sessions that others use for this key.
    pub(super) fn sessions_of_others(&self) -> Vec<usize> {
        let state = self.all.lock();
        let uses = state.in_use.get(&self.key).into_iter().flatten();
        let others = uses.filter(|other| other.number != self.number && other.session != 0);
        others.map(|other| other.session).collect()
    }

    /// Notes on which session the lock is asked for; false if that session has it, or may have it,
    /// for somebody else.
    pub(super) fn bind(&self, session: usize) -> bool {
        let mut state = self.all.lock();
        let Some(uses) = state.in_use.get_mut(&self.key) else {
            return false;
        };
        let is_free = uses
            .iter()
            .all(|other| other.number == self.number || other.session != session);
        if is_free && let Some(own) = uses.iter_mut().find(|own| own.number == self.number) {
            own.session = session;
        }
        is_free
    }

    /// Notes that the lock is now wanted in this way.
    pub(super) fn change_access(&mut self, access: Access) {
        self.access = access;
        self.change(|own| own.access = access);
    }

    /// Notes why nobody knows whether the server holds this lock for us.
    pub(super) fn mark_unconfirmed(&self, why: &LockError) {
        self.change(|own| own.unconfirmed = Some(why.clone()));
    }

    fn change(&self, change: impl FnOnce(&mut Use)) {
        let mut state = self.all.lock();
        let mut uses = state.in_use.get_mut(&self.key).into_iter().flatten();
        if let Some(own) = uses.find(|own| own.number == self.number) {
            change(own);
        }
    }
}

impl<K: Copy + Eq + Hash> Drop for Reservation<K> {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        if let Some(uses) = state.in_use.get_mut(&self.key) {
            uses.retain(|other| other.number != self.number);
            if uses.is_empty() {
                state.in_use.remove(&self.key);
            }
            state.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LockErrorKind;

    fn take(
        all: &Arc<Reservations<u8>>,
        access: Access,
    ) -> Result<Reservation<u8>, Option<LockErrorKind>> {
        let bounds = Bounds::new(None, Some(4));
        let taken = all.take(1, access, &bounds);
        taken.map_err(|error| error.map(|error| error.kind()))
    }

    #[test]
    fn a_key_is_shared_on_different_sessions() {
        let all = Reservations::new();
        let (one, other) = (take(&all, Access::Shared), take(&all, Access::Shared));
        let (one, other) = (one.ok().unwrap(), other.ok().unwrap());
        assert!(one.bind(7) && one.bind(7));
        assert!(!other.bind(7) && other.bind(8));
        assert_eq!(other.sessions_of_others(), [7]);
        assert_eq!(all.sessions_of(&1), [7, 8]);
        // A writer may wait for both; while it does, nobody else begins.
        let writer = take(&all, Access::Exclusive).ok().unwrap();
        assert!(!writer.bind(8) && writer.bind(9));
        assert!(matches!(take(&all, Access::Shared), Err(None)));
        assert!(matches!(take(&all, Access::Exclusive), Err(None)));
        drop((one, other, writer));
        assert!(all.lock().in_use.is_empty() && all.lock().count == 0);
    }

    #[test]
    fn what_is_not_known_and_what_is_too_much_is_told() {
        let all = Reservations::new();
        let readers: Vec<_> = (0..4).map(|_| take(&all, Access::Shared).ok()).collect();
        let unavailable = Err(Some(LockErrorKind::ProviderUnavailable));
        assert_eq!(take(&all, Access::Shared).map(drop), unavailable);
        let why = LockError::new(LockErrorKind::ProviderUnavailable);
        readers[0].as_ref().unwrap().mark_unconfirmed(&why);
        drop(readers);
        assert!(take(&all, Access::Exclusive).is_ok());
    }
}
