//! The session in use, how it is made anew, and another one when it has no room.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use zookeeper_client::Stat;

use super::connect::connect;
use super::path::LockPath;
use super::session::{Room, Session};
use super::settings::Settings;
use super::transactions::Transactions;
use crate::clock::Timestamp;
use crate::provider::{Holder, LockMode, OwnerId};
use crate::providers::kit::holder::Names;
use crate::providers::kit::reconnect::{Joined, SingleFlight};
use crate::{LockError, LockName};

/// How many of the latest sessions of this process are remembered.
const KNOWN_SESSIONS: usize = 1_024;

type Outcome = Result<Arc<Session>, LockError>;

/// Makes a session when somebody asks and there is none; one attempt at a time serves all who ask.
pub(super) struct SessionPool {
    pub(super) settings: Settings,
    pub(super) transactions: Transactions,
    names: Names,
    /// The keeper's runtime: sessions must not end with that of whoever asked for them.
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Session>>,
    /// Sessions that had no room any more. They live as long as their locks.
    full: Vec<Weak<Session>>,
    attempt: SingleFlight<Arc<Session>>,
    /// The ids of the latest sessions. The server may have one that is not here any more.
    ids: VecDeque<i64>,
    /// The transactions that created the nodes of locks that this process holds.
    held: HashSet<i64>,
}

impl SessionPool {
    /// Makes one without a session. To be called on the keeper's runtime.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            transactions: Transactions::default(),
            names: Names::new(&settings.common.key_prefix),
            settings,
            runtime: Handle::current(),
            state: Mutex::default(),
        }
    }

    pub(super) fn path(&self, name: &LockName, mode: LockMode) -> LockPath {
        LockPath::new(&self.settings.directory, &self.names.key(name), mode)
    }

    /// Returns what stands in the node of this owner: who it is, for a person, and which grant.
    pub(super) fn owner(&self, id: OwnerId) -> String {
        self.names.owner(id)
    }

    /// Returns the holder that this text of an owner tells of.
    pub(super) fn holder(&self, owner: &str) -> Holder {
        self.names.holder(owner)
    }

    /// Returns by when a request that does not wait has an answer: after the response timeout. In an
    /// outage that counts from its beginning, but half of it is left in any case.
    pub(super) fn answers_by(&self) -> Timestamp {
        let limit = self.settings.common.response_timeout;
        let now = Timestamp::now();
        let current = self.lock().current.clone();
        let outage = current.filter(|session| !session.has_ended() && !session.is_connected());
        match outage {
            Some(session) => (session.disconnected_since() + limit).max(now + limit / 2),
            None => now + limit,
        }
    }

    /// Takes room for this lock on the session in use, or on a new one, at the latest after the
    /// connect timeout.
    pub(super) async fn room(self: &Arc<Self>, lock: &LockPath) -> Result<Arc<Room>, LockError> {
        loop {
            let attempt = {
                let mut state = self.lock();
                if let Some(room) = state.room(lock.length(), self.long_outage()) {
                    return Ok(Arc::new(room));
                }
                self.attempt(&mut state)
            };
            // Others may have taken all its room by now.
            if let Some(room) = attempt.outcome().await?.room(lock.length()) {
                return Ok(Arc::new(room));
            }
        }
    }

    /// Says whether a session of this id is or was one of these.
    pub(super) fn is_own(&self, id: i64) -> bool {
        self.lock().ids.contains(&id)
    }

    /// Says whether a node is on its way out: one of these sessions has created it, and no lock is
    /// held by it. An acquisition that is under way does not ask this about its own nodes, and
    /// there is no other one of its name.
    pub(super) fn was_left_behind(&self, stat: &Stat) -> bool {
        let state = self.lock();
        state.ids.contains(&stat.ephemeral_owner) && !state.held.contains(&stat.czxid)
    }

    /// Takes note that a lock is held by the nodes that this transaction created.
    pub(super) fn holds(&self, czxid: i64) {
        self.lock().held.insert(czxid);
    }

    /// Says whether a lock is held by the nodes that this transaction created.
    pub(super) fn is_held(&self, czxid: i64) -> bool {
        self.lock().held.contains(&czxid)
    }

    /// Takes note that it is not held any more.
    pub(super) fn holds_no_more(&self, czxid: i64) {
        self.lock().held.remove(&czxid);
    }

    /// Returns after how long a session without a connection is not waited for any more: then
    /// another one is tried beside it.
    pub(super) fn long_outage(&self) -> Duration {
        self.settings.common.connect_timeout / 2
    }

    /// Returns a session that has a connection, while this one has none.
    pub(super) async fn beside(self: &Arc<Self>, session: &Session) -> Outcome {
        let attempt = {
            let mut state = self.lock();
            match &state.current {
                Some(current) if current.is_connected() && current.id() != session.id() => {
                    return Ok(Arc::clone(current));
                }
                _ => self.attempt(&mut state),
            }
        };
        attempt.outcome().await
    }

    /// Takes note of the transaction that a request has made, which was sent after `before` was the
    /// newest.
    pub(super) fn saw(&self, transaction: i64, before: i64) {
        if self.transactions.saw(transaction, before) {
            tracing::warn!(
                servers = %self.settings.hosts,
                "the ensemble has lost its data: locks that were held are lost, and grants have no \
                 fencing tokens until these are above those given before"
            );
        }
    }

    /// Makes a session before anybody needs one.
    pub(super) async fn session(self: &Arc<Self>) -> Outcome {
        let attempt = self.attempt(&mut self.lock());
        attempt.outcome().await
    }

    /// Joins the attempt to make another session that is under way, or begins one.
    fn attempt(self: &Arc<Self>, state: &mut State) -> Joined<Arc<Session>> {
        if let Some(attempt) = state.attempt.join() {
            return attempt;
        }
        let (opening, ended) = (Arc::clone(self), Arc::clone(self));
        state.attempt.begin(
            &self.runtime,
            Duration::ZERO,
            self.servers(),
            async move {
                let began = Timestamp::now();
                let client = connect(&opening.settings, began).await?;
                Ok(Session::new(client, opening.settings.silence, began))
            },
            move |outcome| ended.attempt_ended(outcome),
        )
    }

    fn attempt_ended(&self, outcome: &Outcome) {
        let mut state = self.lock();
        state.attempt.end();
        if let Ok(session) = outcome {
            state.ids.push_back(session.id());
            if state.ids.len() > KNOWN_SESSIONS {
                state.ids.pop_front();
            }
            if let Some(full) = state.current.replace(Arc::clone(session)) {
                state.full.push(Arc::downgrade(&full));
            }
        }
    }

    /// Says in an error which servers it is about.
    pub(super) fn about(&self, error: LockError) -> LockError {
        error.about(self.servers())
    }

    fn servers(&self) -> String {
        format!("servers `{}`", self.settings.hosts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes room on the session in use, or on one that has room again; on none that has been
    /// without a connection for so long.
    fn room(&mut self, length: usize, long_outage: Duration) -> Option<Room> {
        self.full.retain(|session| session.strong_count() > 0);
        let current = self.current.take_if(|current| current.has_ended());
        drop(current);
        let full = self.full.iter().filter_map(Weak::upgrade);
        let mut sessions = self.current.iter().map(Arc::clone).chain(full);
        sessions.find_map(|session| {
            let is_of_use = !session.has_ended() && !session.is_out_for(long_outage);
            is_of_use.then(|| session.room(length))?
        })
    }
}
