//! How much of the server a provider uses: sessions, and places in its table of locks. Both belong
//! to every application of the server, which cannot even connect when they are used up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::Settings;
use crate::{LockError, LockErrorKind};

/// One session is shared by the locks that are held; another one may be needed for a moment, to
/// look where the server's name leads.
const FEWEST_SESSIONS: usize = 2;
/// The parts of what the server has that a provider takes where nobody says otherwise.
const SESSIONS_PART: usize = 10;
const LOCKS_PART: usize = 4;

/// What a server has for all of its clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    pub(super) connections: usize,
    pub(super) locks: usize,
}

pub(super) struct Bounds {
    sessions: Arc<Semaphore>,
    /// Of these, those that wait for one lock or hold it: the rest are shared.
    of_one_lock: Arc<Semaphore>,
    most_sessions: AtomicUsize,
    most_locks: AtomicUsize,
    learnt: Once,
}

/// A session's place within the bounds, for as long as its connection is there.
pub(super) struct Place {
    _session: OwnedSemaphorePermit,
    _of_one_lock: Option<OwnedSemaphorePermit>,
}

impl Bounds {
    pub(super) fn new(settings: &Settings) -> Self {
        let sessions = settings.max_sessions.unwrap_or(FEWEST_SESSIONS);
        Self {
            sessions: Arc::new(Semaphore::new(shared_and_others(sessions))),
            of_one_lock: Arc::new(Semaphore::new(sessions.saturating_sub(FEWEST_SESSIONS))),
            most_sessions: AtomicUsize::new(sessions),
            most_locks: AtomicUsize::new(settings.max_locks.unwrap_or(usize::MAX)),
            learnt: Once::new(),
        }
    }

    /// Sets what nobody has chosen by what the server has.
    pub(super) fn learn(&self, settings: &Settings, server: Capacity) {
        self.learnt.call_once(|| {
            if settings.max_sessions.is_none() {
                let most = (server.connections / SESSIONS_PART).max(FEWEST_SESSIONS);
                self.sessions.add_permits(most - FEWEST_SESSIONS);
                self.of_one_lock.add_permits(most - FEWEST_SESSIONS);
                self.most_sessions.store(most, Ordering::Relaxed);
            }
            if settings.max_locks.is_none() {
                let most = (server.locks / LOCKS_PART).max(1);
                self.most_locks.store(most, Ordering::Relaxed);
            }
        });
    }

    pub(super) fn most_locks(&self) -> usize {
        self.most_locks.load(Ordering::Relaxed)
    }

    /// Whether another shared session may be opened.
    pub(super) fn have_room(&self) -> bool {
        self.sessions.available_permits() > 0
    }

    /// A place for a session that waits for one lock; `None` if there are as many as may be.
    pub(super) fn place_of_one_lock(&self) -> Option<Place> {
        let of_one_lock = Arc::clone(&self.of_one_lock).try_acquire_owned().ok()?;
        let session = Arc::clone(&self.sessions).try_acquire_owned().ok()?;
        Some(Place {
            _session: session,
            _of_one_lock: Some(of_one_lock),
        })
    }

    /// A place for a shared one, as soon as there is one.
    pub(super) async fn place(&self) -> Option<Place> {
        let session = Arc::clone(&self.sessions).acquire_owned().await.ok()?;
        Some(Place {
            _session: session,
            _of_one_lock: None,
        })
    }

    pub(super) fn no_place(&self) -> LockError {
        let most = self.most_sessions.load(Ordering::Relaxed);
        LockError::new(LockErrorKind::ProviderUnavailable).with_detail(format!(
            "this provider has as many sessions as `max_sessions` allows, {most}"
        ))
    }

    /// That so many locks are held or asked for, or more.
    pub(super) fn no_lock(&self) -> LockError {
        LockError::new(LockErrorKind::ProviderUnavailable).with_detail(format!(
            "this provider has as many locks as `max_locks` allows, {}",
            self.most_locks()
        ))
    }
}

/// Without the one for a look.
fn shared_and_others(sessions: usize) -> usize {
    sessions.saturating_sub(1).clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::super::PostgresProviderBuilder;
    use super::*;

    fn bounds(parameters: &str) -> (Bounds, Settings) {
        let url = format!("postgres://localhost?{parameters}");
        let settings = PostgresProviderBuilder::new(url).settings().unwrap();
        (Bounds::new(&settings), settings)
    }

    #[test]
    fn a_part_of_what_the_server_has_is_the_default() {
        let (bounds, settings) = bounds("");
        assert!(bounds.have_room() && bounds.place_of_one_lock().is_none());
        let (connections, locks) = (100, 6_400);
        bounds.learn(&settings, Capacity { connections, locks });
        assert_eq!(bounds.sessions.available_permits(), 9);
        assert_eq!(bounds.of_one_lock.available_permits(), 8);
        assert_eq!(bounds.most_locks(), 1_600);
        // Learnt once: sessions have places already.
        bounds.learn(
            &settings,
            Capacity {
                connections: 10,
                locks: 4,
            },
        );
        assert_eq!(bounds.most_locks(), 1_600);
        assert!(
            bounds
                .no_place()
                .to_string()
                .contains("`max_sessions` allows, 10")
        );
    }

    #[test]
    fn what_was_chosen_stays() {
        let (bounds, settings) = bounds("max_sessions=5&max_locks=7");
        let (connections, locks) = (100, 6_400);
        bounds.learn(&settings, Capacity { connections, locks });
        assert_eq!(bounds.sessions.available_permits(), 4);
        assert_eq!(bounds.most_locks(), 7);
        let places: Vec<_> = (0..4).map(|_| bounds.place_of_one_lock()).collect();
        assert_eq!(
            places.iter().flatten().count(),
            3,
            "one is kept for those that are shared"
        );
        assert!(bounds.have_room());
    }
}
