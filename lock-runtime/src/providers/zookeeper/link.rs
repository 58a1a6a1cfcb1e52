//! The session in use, and how it is made anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::Settings;
use super::error::{lock_error, unanswered};
use super::path::LockPath;
use super::session::Session;
use crate::clock::Timestamp;
use crate::provider::OwnerId;
use crate::providers::host::host;
use crate::signal::Signal;
use crate::{LockError, LockName};

type Outcome = Result<Arc<Session>, LockError>;

/// Makes a session when somebody asks and there is none; one attempt at a time serves all who ask.
pub(super) struct Link {
    pub(super) settings: Settings,
    owner_prefix: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Session>>,
    attempt: Option<Arc<Signal<Outcome>>>,
}

impl Link {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            owner_prefix: format!("lk1:{}:{}:", host(), std::process::id()),
            state: Mutex::default(),
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

    /// The session in use, or a new one, at the latest after the connect timeout.
    pub(super) async fn session(self: &Arc<Self>) -> Outcome {
        let attempt = {
            let mut state = self.lock();
            match &state.current {
                Some(current) if !current.has_ended() => return Ok(Arc::clone(current)),
                _ => state.current = None,
            }
            match &state.attempt {
                Some(attempt) => Arc::clone(attempt),
                None => {
                    let attempt = Arc::new(Signal::new());
                    state.attempt = Some(Arc::clone(&attempt));
                    tokio::spawn(connect(Arc::clone(self), Arc::clone(&attempt)));
                    attempt
                }
            }
        };
        attempt.wait().await.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(link: Arc<Link>, attempt: Arc<Signal<Outcome>>) {
    let sent_at = Timestamp::now();
    let connecting = link.settings.connect();
    let outcome = match tokio::time::timeout(link.settings.connect_timeout, connecting).await {
        Ok(Ok(client)) => Ok(Session::new(client, sent_at)),
        Ok(Err(error)) => Err(lock_error(error)),
        Err(_) => Err(unanswered()),
    };
    let mut state = link.lock();
    state.attempt = None;
    state.current = outcome.as_ref().ok().cloned();
    drop(state);
    attempt.set(outcome);
}
