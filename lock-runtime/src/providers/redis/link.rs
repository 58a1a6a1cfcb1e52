//! The connection in use, and how it is made anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use super::config::Settings;
use super::connection::Connection;
use super::grants::Grants;
use super::keys::Naming;
use crate::provider::{BoxFuture, LockSpace};
use crate::providers::pause::Attempts;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind, schedule};

/// The pause before a connection that follows one of no use: the first, doubled from one to the
/// other, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Connects when somebody asks and there is no connection, and by itself while locks are held; one
/// attempt at a time serves all who ask. Every attempt resolves the server's name again.
pub(super) struct Link {
    pub(super) settings: Settings,
    pub(super) naming: Naming,
    pub(super) grants: Arc<Grants>,
    /// The keeper's: connections must not end with the runtime of whoever asked for them.
    runtime: Handle,
    state: Mutex<State>,
}

type Outcome = Result<Arc<Connection>, LockError>;

/// What whoever needs a connection gets.
enum Joined {
    Connected(Arc<Connection>),
    /// And whether it was under way before.
    Attempt(Arc<Signal<Outcome>>, bool),
}

#[derive(Default)]
struct State {
    current: Option<Arc<Connection>>,
    attempt: Option<Arc<Signal<Outcome>>>,
    attempts: Attempts,
    /// Connections in a row that were made and then answered nothing.
    useless: u32,
    /// Whether there has been a connection before.
    connects_again: bool,
    /// The eviction policy that was warned of last.
    evicts_by: Option<String>,
}

impl Link {
    /// To be called on the keeper's runtime.
    pub(super) fn new(settings: Settings, naming: Naming) -> Self {
        Self {
            grants: Arc::new(Grants::new(settings.response_timeout)),
            settings,
            naming,
            runtime: Handle::current(),
            state: Mutex::default(),
        }
    }

    /// The connection in use, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Connection>> {
        self.lock()
            .current
            .as_ref()
            .filter(|current| !current.has_ended())
            .cloned()
    }

    /// The connection in use, or a new one.
    ///
    /// # Errors
    ///
    /// Those of the next attempt; at once, if none is due soon.
    pub(super) async fn connection(self: &Arc<Self>) -> Outcome {
        let (attempt, is_old) = match self.join_attempt()? {
            Joined::Connected(connection) => return Ok(connection),
            Joined::Attempt(attempt, is_old) => (attempt, is_old),
        };
        match attempt.wait().await {
            // What was under way already may have begun long ago, in an outage that is over.
            Err(error) if is_old && error.is_retryable() => match self.join_attempt()? {
                Joined::Connected(connection) => Ok(connection),
                Joined::Attempt(attempt, _) => attempt.wait().await.clone(),
            },
            outcome => outcome.clone(),
        }
    }

    fn join_attempt(self: &Arc<Self>) -> Result<Joined, LockError> {
        let mut state = self.lock();
        if let Some(current) = state
            .current
            .as_ref()
            .filter(|current| !current.has_ended())
        {
            return Ok(Joined::Connected(Arc::clone(current)));
        }
        state.leave_current();
        if let Some(attempt) = &state.attempt {
            return Ok(Joined::Attempt(Arc::clone(attempt), true));
        }
        let pause = state.attempts.next()?.max(state.pause_after_useless());
        let attempt = Arc::new(Signal::new());
        state.attempt = Some(Arc::clone(&attempt));
        self.runtime.spawn(Arc::clone(self).attempt(pause));
        Ok(Joined::Attempt(attempt, false))
    }

    /// Why the last attempt to connect failed, if the next one has not succeeded yet.
    pub(super) fn why_not_connected(&self) -> Option<LockError> {
        self.lock().attempts.last_error().cloned()
    }

    /// The connection is not to be used for anything new. What is under way on it goes on, so that
    /// it can still be undone there, in order.
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

    async fn attempt(self: Arc<Self>, pause: Duration) {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let limit = self.settings.connect_timeout;
        let link = Arc::clone(&self);
        // A task of its own, so that even a panic in it is answered.
        let opening = tokio::spawn(async move {
            let opening = Connection::open(&link.settings, &link.naming, &link.grants);
            tokio::time::timeout(limit, opening).await
        });
        let outcome = match opening.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unreachable(format!("no connection within {limit:?}"))),
            Err(error) => Err(unreachable("the attempt to connect panicked").with_source(error)),
        };
        let server = self.settings.client.get_connection_info().addr();
        let outcome = outcome.map_err(|error| error.about(format_args!("server `{server}`")));
        let attempt = {
            let mut state = self.lock();
            state.attempts.made(&outcome);
            if let Ok(connection) = &outcome {
                state.current = Some(Arc::clone(connection));
                if std::mem::replace(&mut state.connects_again, true) {
                    let (link, connection) = (Arc::clone(&self), Arc::clone(connection));
                    tokio::spawn(async move { link.warn_of_eviction(&connection).await });
                }
            }
            state.attempt.take()
        };
        if let Ok(connection) = &outcome {
            let link = Arc::downgrade(&self);
            tokio::spawn(Self::keep_connected(link, connection.end_signal()));
            // Behind the same address there may be another server now, or one without its data.
            schedule::renew_all(self.space());
        }
        if let Some(attempt) = attempt {
            attempt.set(outcome);
        }
    }

    /// Warns where the server may throw locks away. It may be another one with each connection;
    /// what was said of one is not said again at the next.
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

    /// When the connection ends, connects again, for as long as there are locks that may be gone.
    fn keep_connected(link: Weak<Self>, ended: Arc<Signal<()>>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            ended.wait().await;
            while let Some(link) = link.upgrade()
                && schedule::watches_any(link.space())
            {
                match link.connection().await {
                    // The new one is looked after by itself.
                    Ok(_) => return,
                    Err(error) if error.is_retryable() => {}
                    // The last attempt's, which comes at once for a while.
                    Err(_) => {
                        drop(link);
                        tokio::time::sleep(LONGEST_PAUSE).await;
                    }
                }
            }
        })
    }

    /// What the locks of this link are known by.
    pub(super) fn space(self: &Arc<Self>) -> LockSpace {
        LockSpace::at(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn leave_current(&mut self) {
        if let Some(connection) = self.current.take() {
            self.useless = match connection.has_served() {
                true => 0,
                false => self.useless.saturating_add(1),
            };
        }
    }

    /// A server, or what stands before it, that takes connections and then breaks them is not to be
    /// asked without end by those who ask again after each.
    fn pause_after_useless(&self) -> Duration {
        match self.useless {
            0 => Duration::ZERO,
            many => (SHORTEST_PAUSE * (1 << (many - 1).min(10))).min(LONGEST_PAUSE),
        }
    }
}

fn unreachable(why: impl Into<String>) -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable).with_detail(why)
}
