//! The session in use, and how it is made anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;

use super::address::{DEFAULT_PORT, has_port};
use super::config::Settings;
use super::error::{lock_error, unanswered};
use super::path::LockPath;
use super::session::Session;
use crate::clock::Timestamp;
use crate::provider::{BoxFuture, OwnerId};
use crate::providers::host::host;
use crate::race::all_of;
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

    /// The error, with the servers that it is about.
    pub(super) fn about(&self, error: LockError) -> LockError {
        error.about(format_args!("servers `{}`", self.settings.hosts))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects, in time, and answers all who wait for it.
async fn connect(link: Arc<Link>, attempt: Arc<Signal<Outcome>>) {
    let sent_at = Timestamp::now();
    let limit = link.settings.connect_timeout;
    let connecting = {
        let link = Arc::clone(&link);
        // A task of its own, so that even a panic in it is answered.
        tokio::spawn(async move { tokio::time::timeout(limit, link.settings.connect()).await })
    };
    let outcome = match connecting.await {
        Ok(Ok(Ok(client))) => Ok(Session::new(client, link.settings.silence, sent_at)),
        Ok(Ok(Err(error))) => {
            let error = lock_error(error);
            let left = (sent_at + limit).remaining();
            match unreachable(&link.settings.hosts, left).await {
                Some(why) => Err(error.about(why)),
                None => Err(error),
            }
        }
        Ok(Err(_)) => Err(unanswered()),
        Err(panicked) => Err(unanswered().with_source(panicked)),
    };
    let outcome = outcome.map_err(|error| link.about(error));
    let mut state = link.lock();
    state.attempt = None;
    state.current = outcome.as_ref().ok().cloned();
    drop(state);
    attempt.set(outcome);
}

/// Which hosts cannot be reached and why, which the client keeps to itself; `None` if all can.
async fn unreachable(hosts: &str, limit: Duration) -> Option<String> {
    let attempts = hosts.split(',').map(|host| -> BoxFuture<'_, _> {
        Box::pin(async move {
            let address = match has_port(host) {
                true => host.to_owned(),
                false => format!("{host}:{DEFAULT_PORT}"),
            };
            match tokio::time::timeout(limit, TcpStream::connect(&address)).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(format!("{address}: {error}")),
                Err(_) => Some(format!("{address}: no answer")),
            }
        })
    });
    let failures: Vec<_> = all_of(attempts.collect())
        .await
        .into_iter()
        .flatten()
        .collect();
    (!failures.is_empty()).then(|| failures.join(", "))
}
