//! The connection in use, and how it is made anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::config::Settings;
use super::connection::Connection;
use super::grants::Grants;
use super::keys::Naming;
use crate::clock::Timestamp;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind};

/// Pauses between attempts: none before the first, then these, doubled from one to the other.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After an error that no repetition mends, such as a wrong password.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// Connects when somebody asks and there is no connection; one attempt at a time serves all who
/// ask. Every attempt resolves the server's name again.
pub(super) struct Link {
    pub(super) settings: Settings,
    pub(super) naming: Naming,
    pub(super) grants: Arc<Grants>,
    /// The keeper's: connections must not end with the runtime of whoever asked for them.
    runtime: Handle,
    state: Mutex<State>,
}

type Outcome = Result<Arc<Connection>, LockError>;

#[derive(Default)]
struct State {
    current: Option<Arc<Connection>>,
    attempt: Option<Arc<Signal<Outcome>>>,
    /// Attempts that failed in a row.
    failures: u32,
    /// When the next attempt may be made, and why not yet.
    paused: Option<(Timestamp, LockError)>,
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
    /// Those of the attempt that was under way or next; at once, if no attempt is due soon.
    pub(super) async fn connection(self: &Arc<Self>) -> Outcome {
        let attempt = {
            let mut state = self.lock();
            if let Some(current) = state
                .current
                .as_ref()
                .filter(|current| !current.has_ended())
            {
                return Ok(Arc::clone(current));
            }
            state.current = None;
            match (&state.attempt, &state.paused) {
                (Some(attempt), _) => Arc::clone(attempt),
                (None, Some((until, error))) if until.remaining() > LONGEST_PAUSE => {
                    return Err(error.clone());
                }
                (None, paused) => {
                    let pause = paused.as_ref().map(|(until, _)| until.remaining());
                    let attempt = Arc::new(Signal::new());
                    state.attempt = Some(Arc::clone(&attempt));
                    let attempting = Arc::clone(self).attempt(pause.unwrap_or_default());
                    self.runtime.spawn(attempting);
                    attempt
                }
            }
        };
        attempt.wait().await.clone()
    }

    /// The connection is not to be used for anything new. What is under way on it goes on, so that
    /// it can still be undone there, in order.
    pub(super) fn retire(&self, connection: &Arc<Connection>) {
        connection.end();
        let mut state = self.lock();
        state
            .current
            .take_if(|current| Arc::ptr_eq(current, connection));
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
            match &outcome {
                Ok(connection) => {
                    state.current = Some(Arc::clone(connection));
                    state.failures = 0;
                    state.paused = None;
                }
                Err(error) => {
                    let pause = if error.is_retryable() {
                        let doubled = SHORTEST_PAUSE.saturating_mul(1 << state.failures.min(10));
                        doubled.min(LONGEST_PAUSE)
                    } else {
                        PAUSE_AFTER_REFUSAL
                    };
                    state.failures = state.failures.saturating_add(1);
                    state.paused = Some((Timestamp::now() + pause, error.clone()));
                }
            }
            state.attempt.take()
        };
        if let Some(attempt) = attempt {
            attempt.set(outcome);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreachable(why: impl Into<String>) -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable).with_detail(why)
}
