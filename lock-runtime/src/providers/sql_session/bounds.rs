//! How much of the server a provider uses: sessions, and room in its table of locks. Both belong to
//! all applications of the server, and none of them can even connect when they are used up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{LockError, LockErrorKind};

/// One session is shared by the locks that are held. Another one may be needed for a moment, to
/// look where the server's name leads.
const FEWEST_SESSIONS: usize = 2;
/// The parts of what the server has that a provider takes by default.
const SESSIONS_PART: usize = 10;
const LOCKS_PART: usize = 4;

/// What a server has for all of its clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) connections: usize,
    pub(crate) locks: usize,
}

/// How many sessions and locks a provider may have.
pub(super) struct Bounds {
    sessions: Arc<Semaphore>,
    /// Of these, the sessions that wait for one lock or hold it: the rest are shared.
    of_one_lock: Arc<Semaphore>,
    most_sessions: AtomicUsize,
    most_locks: AtomicUsize,
    sessions_were_chosen: bool,
    locks_were_chosen: bool,
    learnt: Once,
}

/// A session's part of the bounds, for as long as its connection is there.
pub(crate) struct SessionPermit {
    _session: OwnedSemaphorePermit,
    _of_one_lock: Option<OwnedSemaphorePermit>,
}

impl Bounds {
    /// Takes the bounds that somebody has chosen. The others are as low as can be until
    /// [`learn`](Self::learn).
    pub(super) fn new(max_sessions: Option<usize>, max_locks: Option<usize>) -> Self {
        let sessions = max_sessions.unwrap_or(FEWEST_SESSIONS);
        Self {
            sessions: Arc::new(Semaphore::new(shared_and_others(sessions))),
            of_one_lock: Arc::new(Semaphore::new(sessions.saturating_sub(FEWEST_SESSIONS))),
            most_sessions: AtomicUsize::new(sessions),
            most_locks: AtomicUsize::new(max_locks.unwrap_or(usize::MAX)),
            sessions_were_chosen: max_sessions.is_some(),
            locks_were_chosen: max_locks.is_some(),
            learnt: Once::new(),
        }
    }

    /// Sets what nobody has chosen by what the server has.
    pub(super) fn learn(&self, server: Capacity) {
        self.learnt.call_once(|| {
            if !self.sessions_were_chosen {
                let most = (server.connections / SESSIONS_PART).max(FEWEST_SESSIONS);
                self.sessions.add_permits(most - FEWEST_SESSIONS);
                self.of_one_lock.add_permits(most - FEWEST_SESSIONS);
                self.most_sessions.store(most, Ordering::Relaxed);
            }
            if !self.locks_were_chosen {
                let most = (server.locks / LOCKS_PART).max(1);
                self.most_locks.store(most, Ordering::Relaxed);
            }
        });
    }

    /// Returns how many locks may be held or asked for.
    pub(super) fn most_locks(&self) -> usize {
        self.most_locks.load(Ordering::Relaxed)
    }

    /// Says whether another shared session may be opened.
    pub(super) fn have_room(&self) -> bool {
        self.sessions.available_permits() > 0
    }

    /// Returns a permit for a session that waits for one lock; `None` if there are as many as may
    /// be.
    pub(super) fn permit_of_one_lock(&self) -> Option<SessionPermit> {
        let of_one_lock = Arc::clone(&self.of_one_lock).try_acquire_owned().ok()?;
        let session = Arc::clone(&self.sessions).try_acquire_owned().ok()?;
        Some(SessionPermit {
            _session: session,
            _of_one_lock: Some(of_one_lock),
        })
    }

    /// Waits for the permit of a shared session.
    pub(super) async fn permit(&self) -> Option<SessionPermit> {
        let session = Arc::clone(&self.sessions).acquire_owned().await.ok()?;
        Some(SessionPermit {
            _session: session,
            _of_one_lock: None,
        })
    }

    /// Makes the error of an acquisition for which no session may be opened.
    pub(super) fn no_session(&self) -> LockError {
        let most = self.most_sessions.load(Ordering::Relaxed);
        LockError::new(LockErrorKind::ProviderUnavailable).with_detail(format!(
            "this provider has as many sessions as `max_sessions` allows, {most}"
        ))
    }

    /// Makes the error of an acquisition beyond the most locks.
    pub(super) fn no_lock(&self) -> LockError {
        LockError::new(LockErrorKind::ProviderUnavailable).with_detail(format!(
            "this provider has as many locks as `max_locks` allows, {}",
            self.most_locks()
        ))
    }
}

/// Leaves out the session that is kept for a look.
fn shared_and_others(sessions: usize) -> usize {
    sessions.saturating_sub(1).clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Capacity = Capacity {
        connections: 100,
        locks: 6_400,
    };

    #[test]
    fn a_part_of_what_the_server_has_is_the_default() {
        let bounds = Bounds::new(None, None);
        assert!(bounds.have_room() && bounds.permit_of_one_lock().is_none());
        bounds.learn(SERVER);
        assert_eq!(bounds.sessions.available_permits(), 9);
        assert_eq!(bounds.of_one_lock.available_permits(), 8);
        assert_eq!(bounds.most_locks(), 1_600);
        // Learnt once: sessions have permits already.
        bounds.learn(Capacity {
            connections: 10,
            locks: 4,
        });
        assert_eq!(bounds.most_locks(), 1_600);
        assert!(
            bounds
                .no_session()
                .to_string()
                .contains("`max_sessions` allows, 10")
        );
    }

    #[test]
    fn what_was_chosen_stays() {
        let bounds = Bounds::new(Some(5), Some(7));
        bounds.learn(SERVER);
        assert_eq!(bounds.sessions.available_permits(), 4);
        assert_eq!(bounds.most_locks(), 7);
        let permits: Vec<_> = (0..4).map(|_| bounds.permit_of_one_lock()).collect();
        assert_eq!(
            permits.iter().flatten().count(),
            3,
            "one is kept for those that are shared"
        );
        assert!(bounds.have_room());
    }
}
