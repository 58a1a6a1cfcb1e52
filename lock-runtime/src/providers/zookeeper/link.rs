//! The session in use, how it is made anew, and another one when it has no room.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;

use super::address::{DEFAULT_PORT, has_port};
use super::config::Settings;
use super::error::{lock_error, unanswered};
use super::path::LockPath;
use super::session::{Room, Session};
use crate::clock::Timestamp;
use crate::provider::{BoxFuture, OwnerId};
use crate::providers::host::host;
use crate::race::all_of;
use crate::signal::Signal;
use crate::token::FencingToken;
use crate::{LockError, LockName};

/// Of a host to which TCP connects.
const NO_SESSION: &str = "takes connections, but opens no session: it is overloaded, has as many \
                          connections from this address as its `maxClientCnxns` allows, does not \
                          speak ZooKeeper, or its TLS settings or certificate do not fit";
const HUNG_UP: [ErrorKind; 2] = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
/// Sessions of this process are known again for so many more.
const KNOWN_SESSIONS: usize = 1_024;

type Outcome = Result<Arc<Session>, LockError>;

/// Makes a session when somebody asks and there is none; one attempt at a time serves all who ask.
pub(super) struct Link {
    pub(super) settings: Settings,
    owner_prefix: String,
    state: Mutex<State>,
    /// The highest transaction of the ensemble that this process has seen, and below which tokens are
    /// not above those that were given.
    newest: AtomicI64,
    no_tokens_below: AtomicI64,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Session>>,
    /// Those that had no room any more. They live as long as their locks.
    full: Vec<Weak<Session>>,
    attempt: Option<Arc<Signal<Outcome>>>,
    /// The ids of all sessions lately; the server may have one that is not here any more.
    ids: VecDeque<i64>,
}

impl Link {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            owner_prefix: format!("lk1:{}:{}:", host(), std::process::id()),
            state: Mutex::default(),
            newest: AtomicI64::new(0),
            no_tokens_below: AtomicI64::new(0),
        }
    }

    pub(super) fn path(&self, name: &LockName) -> LockPath {
        let settings = &self.settings;
        let key = format!("{}{}", settings.key_prefix, name.as_str());
        LockPath::new(&settings.directory, &key)
    }

    /// What stands in the node of this owner: who it is, for a person, and which grant.
    pub(super) fn owner(&self, id: OwnerId) -> String {
        format!("{}{id}", self.owner_prefix)
    }

    /// By when who does not wait has an answer: after the connect timeout. In an outage a release that
    /// came before may have taken up to half of it.
    pub(super) fn answers_by(&self) -> Timestamp {
        let limit = self.settings.connect_timeout;
        let now = Timestamp::now();
        let current = self.lock().current.clone();
        let outage = current.filter(|session| !session.has_ended() && !session.is_connected());
        match outage {
            Some(session) => (session.disconnected_since() + limit).max(now + limit / 2),
            None => now + limit,
        }
    }

    /// Room for this lock on the session in use, or on a new one, at the latest after the connect
    /// timeout.
    pub(super) async fn room(self: &Arc<Self>, lock: &LockPath) -> Result<Arc<Room>, LockError> {
        loop {
            let attempt = {
                let mut state = self.lock();
                if let Some(room) = state.room(lock.child_length(), self.long_outage()) {
                    return Ok(Arc::new(room));
                }
                self.attempt(&mut state)
            };
            // Others may have taken all its room by now.
            if let Some(room) = attempt.wait().await.clone()?.room(lock.child_length()) {
                return Ok(Arc::new(room));
            }
        }
    }

    /// Whether a session of this id is or was one of these. A name's nodes of theirs, other than that
    /// of the acquisition under way, are on their way out.
    pub(super) fn is_own(&self, id: i64) -> bool {
        self.lock().ids.contains(&id)
    }

    /// From then on a session without a connection is not waited for: another one is tried beside it.
    pub(super) fn long_outage(&self) -> Duration {
        self.settings.connect_timeout / 2
    }

    /// A session that has a connection, while this one has none.
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
        attempt.wait().await.clone()
    }

    /// The newest transaction of the ensemble so far.
    pub(super) fn newest(&self) -> i64 {
        self.newest.load(Ordering::Acquire)
    }

    /// A request that was sent after `before` was the newest has made this transaction.
    pub(super) fn saw(&self, transaction: i64, before: i64) {
        self.newest.fetch_max(transaction, Ordering::AcqRel);
        if transaction < before && self.no_tokens_below.fetch_max(before, Ordering::AcqRel) < before
        {
            tracing::warn!(
                servers = %self.settings.hosts,
                "the ensemble has lost its data: locks that were held are lost, and grants have no \
                 fencing tokens until these are above those given before"
            );
        }
    }

    /// The fencing token of a node, if it is above those given before.
    pub(super) fn token(&self, created: i64) -> Option<FencingToken> {
        let is_above = created > self.no_tokens_below.load(Ordering::Acquire);
        is_above.then(|| FencingToken::new(created.unsigned_abs()))
    }

    /// Makes a session before anybody needs one.
    pub(super) async fn session(self: &Arc<Self>) -> Outcome {
        let attempt = self.attempt(&mut self.lock());
        attempt.wait().await.clone()
    }

    /// The attempt to make another session that is under way, or a new one.
    fn attempt(self: &Arc<Self>, state: &mut State) -> Arc<Signal<Outcome>> {
        let attempt = state.attempt.get_or_insert_with(|| {
            let attempt = Arc::new(Signal::new());
            tokio::spawn(connect(Arc::clone(self), Arc::clone(&attempt)));
            attempt
        });
        Arc::clone(attempt)
    }

    /// The error, with the servers that it is about.
    pub(super) fn about(&self, error: LockError) -> LockError {
        error.about(format_args!("servers `{}`", self.settings.hosts))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// On the session in use, or on one that has room again; on none that has been without a
    /// connection for so long.
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

/// Connects, in time, and answers all who wait for it.
async fn connect(link: Arc<Link>, attempt: Arc<Signal<Outcome>>) {
    let sent_at = Timestamp::now();
    let limit = link.settings.connect_timeout;
    let connecting = {
        let link = Arc::clone(&link);
        // A task of its own, so that even a panic in it is answered.
        tokio::spawn(async move {
            let settings = &link.settings;
            let mut connecting = pin!(settings.connect());
            let soon = tokio::time::timeout(limit / 2, connecting.as_mut()).await;
            if let Ok(Ok(client)) = soon {
                return Ok(client);
            }
            // The client keeps the reasons to itself, so they are looked for beside it.
            let left = (sent_at + limit).remaining();
            let why = tokio::spawn(why_not(settings.hosts.clone(), left * 3 / 4));
            let outcome = match soon {
                Ok(outcome) => Ok(outcome),
                Err(_) => tokio::time::timeout(left, connecting).await,
            };
            let error = match outcome {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) => lock_error(error),
                Err(_) => unanswered(),
            };
            // What a server has answered needs no other reason.
            match error.is_retryable() {
                true => Err(error.about(why.await.unwrap_or_default())),
                false => Err(error),
            }
        })
    };
    let outcome = match connecting.await {
        Ok(Ok(client)) => Ok(Session::new(client, link.settings.silence, sent_at)),
        Ok(Err(error)) => Err(error),
        Err(panicked) => Err(unanswered().with_source(panicked)),
    };
    let outcome = outcome.map_err(|error| link.about(error));
    let mut state = link.lock();
    state.attempt = None;
    if let Ok(session) = &outcome {
        state.ids.push_back(session.id());
        if state.ids.len() > KNOWN_SESSIONS {
            state.ids.pop_front();
        }
        if let Some(full) = state.current.replace(Arc::clone(session)) {
            state.full.push(Arc::downgrade(&full));
        }
    }
    drop(state);
    attempt.set(outcome);
}

/// What each host does when somebody connects, as far as that shows in this time.
async fn why_not(hosts: String, limit: Duration) -> String {
    let attempts = hosts.split(',').map(|host| -> BoxFuture<'_, _> {
        Box::pin(async move {
            let address = match has_port(host) {
                true => host.to_owned(),
                false => format!("{host}:{DEFAULT_PORT}"),
            };
            match tokio::time::timeout(limit, TcpStream::connect(&address)).await {
                Ok(Ok(_)) => format!("{address}: {NO_SESSION}"),
                // It hung up as soon as it had taken the connection.
                Ok(Err(error)) if HUNG_UP.contains(&error.kind()) => {
                    format!("{address}: {NO_SESSION} ({error})")
                }
                Ok(Err(error)) => format!("{address}: {error}"),
                Err(_) => format!("{address}: no answer"),
            }
        })
    });
    all_of(attempts.collect()).await.join(", ")
}
