//! Which server the name leads to, and which of our sessions a server may still have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::server::{Known, Server, Shows, outdated};
use super::traits::{BackendOf, LockSession, Opened};
use crate::LockError;
use crate::clock::Timestamp;
use crate::providers::kit::session::Liveness;

/// Every session of a provider, until no server has it any more.
pub(super) struct Roster<S: LockSession> {
    /// The server's name, as errors and the log show it.
    server_name: String,
    state: Mutex<State<S>>,
}

struct State<S: LockSession> {
    /// The server that the name leads to.
    known: Option<Known>,
    /// Every session, until the server is known to have it no more.
    sessions: Vec<Entry<S>>,
}

type Entry<S> = (BackendOf<S>, Arc<Liveness<<S as LockSession>::Key>>);

/// Sessions that have ended with their server's turn, and why.
type Replaced<S> = Option<(Vec<Entry<S>>, &'static str)>;

impl<S: LockSession> Roster<S> {
    pub(super) fn new(server_name: &str) -> Self {
        Self {
            server_name: server_name.to_owned(),
            state: Mutex::new(State {
                known: None,
                sessions: Vec::new(),
            }),
        }
    }

    /// Notes which server a connection has shown that was begun at this time. If the name has gone
    /// on to it, the sessions of the one before end, and their locks are lost.
    ///
    /// # Errors
    ///
    /// If the name has gone on from it.
    pub(super) fn note_server(
        &self,
        server: Server,
        connected_at: Timestamp,
    ) -> Result<(), LockError> {
        let replaced = self.compare(&mut self.lock(), server, connected_at)?;
        end_all::<S>(replaced);
        Ok(())
    }

    /// Does the same for a session that was opened: it ends with the server's turn.
    pub(super) fn admit(&self, opened: &Opened<S>) -> Result<(), LockError> {
        let server = opened.backend.server;
        let replaced = {
            let mut state = self.lock();
            let replaced = self.compare(&mut state, server, opened.connected_at)?;
            let liveness = Arc::clone(opened.client.liveness());
            state.sessions.push((opened.backend, liveness));
            replaced
        };
        end_all::<S>(replaced);
        Ok(())
    }

    /// Takes out the sessions that end by it.
    fn compare(
        &self,
        state: &mut State<S>,
        server: Server,
        connected_at: Timestamp,
    ) -> Result<Replaced<S>, LockError> {
        let Some(known) = &mut state.known else {
            state.known = Some(Known::new(server, connected_at));
            return Ok(None);
        };
        let why = match known.compare(server, connected_at) {
            Shows::TheSame => {
                known.confirm(connected_at);
                return Ok(None);
            }
            Shows::Outdated => {
                return Err(outdated().about(format_args!("server `{}`", self.server_name)));
            }
            Shows::Another(why) => why,
        };
        *known = Known::new(server, connected_at);
        tracing::warn!(server = %self.server_name, "{why}");
        let sessions = std::mem::take(&mut state.sessions);
        let (same, replaced) = sessions
            .into_iter()
            .partition(|(backend, _)| backend.server == server);
        state.sessions = same;
        Ok(Some((replaced, why)))
    }

    /// Says whether this process of the server serves a session of ours.
    pub(super) fn serves_us(&self, pid: S::Pid) -> bool {
        let state = self.lock();
        state.sessions.iter().any(|(backend, _)| backend.pid == pid)
    }

    /// Forgets a session that the server has no more, or that nobody can ask it about.
    pub(super) fn forget(&self, backend: BackendOf<S>) {
        self.lock().sessions.retain(|(known, _)| *known != backend);
    }

    /// Says whether the server may still have this session.
    pub(super) fn may_exist(&self, backend: BackendOf<S>) -> bool {
        let state = self.lock();
        state.sessions.iter().any(|(known, _)| *known == backend)
    }

    /// Says whether the server may still have a session of ours that has ended.
    pub(super) fn has_ended_ones(&self) -> bool {
        let state = self.lock();
        state.sessions.iter().any(|(_, known)| known.has_ended())
    }

    /// Says whether all these processes of the server serve sessions of ours that have ended.
    pub(super) fn serves_ended_ones_alone(&self, pids: &[S::Pid]) -> bool {
        let state = self.lock();
        let has_ended = |pid: &S::Pid| {
            let mut sessions = state.sessions.iter();
            sessions.any(|(backend, known)| backend.pid == *pid && known.has_ended())
        };
        pids.iter().all(has_ended)
    }

    /// Says whether one of these processes of the server serves a session of ours that has ended.
    pub(super) fn serve_ended_ones(&self, pids: &[S::Pid]) -> bool {
        let state = self.lock();
        let mut ended = state.sessions.iter().filter(|(_, known)| known.has_ended());
        ended.any(|(backend, _)| pids.contains(&backend.pid))
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends sessions, outside the roster's lock: that wakes whoever has to hear of it.
fn end_all<S: LockSession>(replaced: Replaced<S>) {
    let Some((sessions, why)) = replaced else {
        return;
    };
    for (_, liveness) in sessions {
        liveness.end(why);
    }
}
