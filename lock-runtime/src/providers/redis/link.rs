//! The connection in use, and how it is made anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::config::Settings;
use super::connection::Connection;
use super::grants::Grants;
use super::keys::Naming;
use crate::providers::pause::Attempts;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind};

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
    attempts: Attempts,
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
            match &state.attempt {
                Some(attempt) => Arc::clone(attempt),
                None => {
                    let pause = state.attempts.next()?;
                    let attempt = Arc::new(Signal::new());
                    state.attempt = Some(Arc::clone(&attempt));
                    self.runtime.spawn(Arc::clone(self).attempt(pause));
                    attempt
                }
            }
        };
        attempt.wait().await.clone()
    }

    /// Why the last attempt to connect failed, if the next one has not succeeded yet.
    pub(super) fn why_not_connected(&self) -> Option<LockError> {
        self.lock().attempts.last_error().cloned()
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
            state.attempts.made(&outcome);
            if let Ok(connection) = &outcome {
                state.current = Some(Arc::clone(connection));
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
