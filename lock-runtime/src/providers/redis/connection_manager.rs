//! The connection in use, and how it is made anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::RedisError;
use tokio::runtime::Handle;

use super::connection::Connection;
use super::error::fault;
use super::keys::Naming;
use super::notifications::Notifications;
use super::settings::Settings;
use crate::LockError;
use crate::background;
use crate::future::{First, select};
use crate::lease::schedule;
use crate::provider::{BoxFuture, LockSpace};
use crate::providers::kit::backoff::{ConnectBackoff, doubled};
use crate::providers::kit::error::unavailable;
use crate::providers::kit::fault::Fault;
use crate::providers::kit::reconnect::{Joined, SingleFlight};
use crate::signal::Signal;

/// The pause before a connection that follows one of no use: the first, doubled from one to the
/// other, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Connects when somebody asks and there is no connection, and by itself while locks are held; one
/// attempt at a time serves all who ask. Every attempt resolves the server's name again, or asks
/// the sentinels.
pub(super) struct ConnectionManager {
    pub(super) settings: Settings,
    pub(super) naming: Naming,
    pub(super) notifications: Arc<Notifications>,
    /// What the locks belong to, if that is not this server alone.
    space: Option<LockSpace>,
    /// The background runtime: connections must not end with that of whoever asked for them.
    runtime: Handle,
    state: Mutex<State>,
}

type Outcome = Result<Arc<Connection>, LockError>;

/// What whoever needs a connection gets.
enum Source {
    Connected(Arc<Connection>),
    Attempt(Joined<Arc<Connection>>),
}

#[derive(Default)]
struct State {
    current: Option<Arc<Connection>>,
    attempt: SingleFlight<Arc<Connection>>,
    backoff: ConnectBackoff,
    /// Connections in a row that were made and then answered nothing.
    useless: u32,
    /// Whether there has been a connection before.
    connects_again: bool,
    /// The eviction policy that was warned of last.
    evicts_by: Option<String>,
}

impl ConnectionManager {
    /// Makes one without a connection. To be called on the background runtime.
    pub(super) fn new(settings: Settings, naming: Naming) -> Self {
        Self {
            notifications: Arc::new(Notifications::new(settings.common.response_timeout)),
            settings,
            naming,
            space: None,
            runtime: Handle::current(),
            state: Mutex::default(),
        }
    }

    /// Says that the locks belong to this space, as those of other servers do.
    pub(super) fn in_space(mut self, space: LockSpace) -> Self {
        self.space = Some(space);
        self
    }

    /// Returns the connection in use, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Connection>> {
        self.lock().current().cloned()
    }

    /// Returns the connection in use, or makes a new one.
    ///
    /// # Errors
    ///
    /// Those of the next attempt; at once, if none is due soon.
    pub(super) async fn connection(self: &Arc<Self>) -> Outcome {
        let attempt = match self.source()? {
            Source::Connected(connection) => return Ok(connection),
            Source::Attempt(attempt) => attempt,
        };
        match attempt.outcome().await {
            // What was under way already may have begun long ago, in an outage that is over.
            Err(error) if attempt.was_under_way && error.is_retryable() => match self.source()? {
                Source::Connected(connection) => Ok(connection),
                Source::Attempt(attempt) => attempt.outcome().await,
            },
            outcome => outcome,
        }
    }

    fn source(self: &Arc<Self>) -> Result<Source, LockError> {
        let mut state = self.lock();
        if let Some(current) = state.current() {
            return Ok(Source::Connected(Arc::clone(current)));
        }
        state.leave_current();
        if let Some(attempt) = state.attempt.join() {
            return Ok(Source::Attempt(attempt));
        }
        let pause = state.backoff.delay()?.max(state.pause_after_useless());
        let (opening, ended) = (Arc::clone(self), Arc::clone(self));
        // From here on, since the state is locked, no move is missed.
        let mut moves = self.settings.resolver.moves();
        Ok(Source::Attempt(state.attempt.begin(
            &self.runtime,
            Duration::ZERO,
            self.settings.resolver.subject(),
            async move {
                // A server that has just become the primary is worth an attempt at once.
                select(moves.next(), tokio::time::sleep(pause)).await;
                opening.open().await
            },
            move |outcome| ended.attempt_ended(outcome),
        )))
    }

    async fn open(&self) -> Outcome {
        loop {
            match self.open_one().await {
                Some(outcome) => return outcome,
                // Another server is the primary now, and waiting for this one would be in vain.
                None => continue,
            }
        }
    }

    async fn open_one(&self) -> Option<Outcome> {
        let Settings {
            common, resolver, ..
        } = &self.settings;
        let limit = common.connect_timeout;
        let opening = async {
            let server = resolver.resolve().await?;
            let mut moves = resolver.moves();
            let opening =
                Connection::open(&self.settings, &server, &self.naming, &self.notifications);
            match select(opening, moves.next()).await {
                First::Left(opened) => opened.map(Some).map_err(|it| resolver.named(&server, it)),
                First::Right(()) => Ok(None),
            }
        };
        tokio::time::timeout(limit, opening)
            .await
            .unwrap_or_else(|_| Err(unavailable(format!("no connection within {limit:?}"))))
            .transpose()
    }

    fn attempt_ended(self: Arc<Self>, outcome: &Outcome) {
        let replaced = {
            let mut state = self.lock();
            state.backoff.record(outcome);
            if let Ok(connection) = outcome {
                state.current = Some(Arc::clone(connection));
                if std::mem::replace(&mut state.connects_again, true) {
                    let (manager, connection) = (Arc::clone(&self), Arc::clone(connection));
                    background::spawn_beside(
                        async move { manager.warn_of_eviction(&connection).await },
                    );
                }
            }
            state.attempt.end();
            self.leave_replaced(&mut state)
        };
        if let Some(replaced) = replaced {
            replaced.end();
        }
        if let Ok(connection) = outcome {
            let manager = Arc::downgrade(&self);
            background::spawn_beside(Self::keep_connected(manager, connection.end_signal()));
            // Behind the same address there may be another server now, or one without its data.
            schedule::renew_all(self.space());
        }
    }

    /// Follows what the sentinels tell, if there are any, for as long as this is there. To be called
    /// on the background runtime.
    pub(super) fn follow(self: &Arc<Self>) {
        self.settings.resolver.watch();
        let (manager, mut moves) = (Arc::downgrade(self), self.settings.resolver.moves());
        // What was told since the first connection was made.
        self.leave_old_primary();
        background::spawn_beside(async move {
            while moves.next_or_end().await
                && let Some(manager) = manager.upgrade()
            {
                manager.leave_old_primary();
            }
        });
    }

    fn leave_old_primary(&self) {
        let replaced = {
            let mut state = self.lock();
            let replaced = self.leave_replaced(&mut state);
            // The new one is worth an attempt at once.
            state.backoff = ConnectBackoff::default();
            state.useless = 0;
            replaced
        };
        if let Some(replaced) = replaced {
            replaced.end();
        }
    }

    /// Takes the connection out of use if another server has become the primary. The old one may be
    /// there still, and does not know. Returns it: to end it may run the code of others, for which
    /// the state must not be locked.
    fn leave_replaced(&self, state: &mut State) -> Option<Arc<Connection>> {
        let current = state.current().filter(|current| self.has_left(current));
        let replaced = current.cloned();
        if replaced.is_some() {
            state.leave_current();
        }
        replaced
    }

    /// Says whether a connection leads to a server that is the primary no more. What that answers
    /// means nothing.
    pub(super) fn has_left(&self, connection: &Connection) -> bool {
        self.settings.resolver.has_left(connection.announced())
    }

    /// Says why the last attempt to connect failed, if the next one has not succeeded yet.
    pub(super) fn why_not_connected(&self) -> Option<LockError> {
        self.lock().backoff.last_error().cloned()
    }

    /// Uses the connection for nothing new. What is under way on it goes on, so that it can still
    /// be taken back there, in order.
    pub(super) fn retire(&self, connection: &Arc<Connection>) {
        let mut state = self.lock();
        if state
            .current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, connection))
        {
            state.leave_current();
        }
        drop(state);
        connection.end();
    }

    /// Says what an error on this connection means, and retires the connection if it is to blame.
    pub(super) fn note(&self, connection: &Arc<Connection>, error: &RedisError) -> Fault {
        let fault = fault(error);
        if fault.is_uncertain() {
            self.retire(connection);
        }
        fault
    }

    /// Warns where the server may throw locks away. Each connection may be to another server. What
    /// was said of one connection is not said again of the next.
    pub(super) async fn warn_of_eviction(&self, connection: &Connection) {
        let Some(policy) = connection.evicts_by().await else {
            return;
        };
        let known = self.lock().evicts_by.replace(policy.clone());
        if known.as_ref() != Some(&policy) {
            tracing::warn!(
                policy,
                "the Redis server evicts keys when its memory is full, and with them locks that \
                 are held; set `maxmemory-policy noeviction`",
            );
        }
    }

    /// Connects again when the connection ends, for as long as there are locks that may be gone.
    fn keep_connected(manager: Weak<Self>, ended: Arc<Signal<()>>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            ended.wait().await;
            while let Some(manager) = manager.upgrade()
                && schedule::watches_any(manager.space())
            {
                match manager.connection().await {
                    // The new one is looked after by itself.
                    Ok(_) => return,
                    Err(error) if error.is_retryable() => {}
                    // It is the last attempt's, which comes at once for a while.
                    Err(_) => {
                        drop(manager);
                        tokio::time::sleep(LONGEST_PAUSE).await;
                    }
                }
            }
        })
    }

    /// Returns what the locks of this server are known by.
    pub(super) fn space(self: &Arc<Self>) -> LockSpace {
        self.space.unwrap_or_else(|| LockSpace::at(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn current(&self) -> Option<&Arc<Connection>> {
        self.current.as_ref().filter(|current| !current.has_ended())
    }

    fn leave_current(&mut self) {
        if let Some(connection) = self.current.take() {
            self.useless = match connection.has_served() {
                true => 0,
                false => self.useless.saturating_add(1),
            };
        }
    }

    /// Returns how long to wait after connections that were of no use. A server that takes
    /// connections and then breaks them, or what stands before it, is not to be asked without end
    /// by those who ask again after each.
    fn pause_after_useless(&self) -> Duration {
        match self.useless {
            0 => Duration::ZERO,
            many => doubled(SHORTEST_PAUSE, many - 1, LONGEST_PAUSE),
        }
    }
}
