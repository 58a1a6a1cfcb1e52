//! One sentinel, and the connection to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Pipeline, PushInfo, PushKind, RedisError, cmd, from_redis_value};
use tokio::sync::Mutex;

use super::super::address::HostPort;
use super::super::client::Server;
use super::super::error::{fault, lock_error};
use super::super::hello::Hello;
use super::super::opening::{open, subscribe};
use super::super::pipeline::RequestPipeline;
use super::told::{Answer, SWITCHES, question, read, switched};
use crate::providers::kit::error::{invalid, unavailable};
use crate::signal::Signal;
use crate::wake::survive;
use crate::{LockError, LockErrorKind};

/// A sentinel. Its connection is kept, for questions and for what it tells by itself.
pub(super) struct Peer {
    server: Server,
    host: HostPort,
    /// Whether the user has named it, and not another sentinel.
    is_listed: bool,
    connection: Mutex<Option<Arc<Connection>>>,
    /// What it calls itself, once it has said so.
    id: OnceLock<String>,
    is_reached: AtomicBool,
}

struct Connection {
    requests: RequestPipeline,
    ended: Arc<Signal<()>>,
}

/// Who hears that another server has become the primary.
pub(super) type Hears = Arc<dyn Fn(HostPort) + Send + Sync>;

impl Peer {
    pub(super) fn new(server: Server, host: HostPort, is_listed: bool) -> Self {
        Self {
            server,
            host,
            is_listed,
            connection: Mutex::default(),
            id: OnceLock::new(),
            is_reached: AtomicBool::new(false),
        }
    }

    pub(super) fn host(&self) -> &HostPort {
        &self.host
    }

    pub(super) fn is_listed(&self) -> bool {
        self.is_listed
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.get().map(String::as_str)
    }

    /// Says whether it answered when it was asked last.
    pub(super) fn is_reached(&self) -> bool {
        self.is_reached.load(Ordering::Relaxed)
    }

    /// Says whether a majority is counted with it: one that the user has not named may stand where
    /// this process never gets.
    pub(super) fn counts(&self) -> bool {
        self.is_listed || self.is_reached()
    }

    /// Asks it for the primary of a service, and for the other sentinels.
    ///
    /// # Errors
    ///
    /// If it does not answer within this time, or refuses. They name it.
    pub(super) async fn ask(
        &self,
        service: &str,
        limit: Duration,
        hears: impl FnOnce() -> Hears,
    ) -> Result<Answer, LockError> {
        let asking = async {
            let connection = self.connection(service, limit, hears).await?;
            let answers = connection.requests.ask_all(question(service)).await;
            answers
                .and_then(read)
                .map_err(|error| connection.note(error))
        };
        let answer = match tokio::time::timeout(limit, asking).await {
            Ok(answer) => answer,
            Err(_) => {
                // A connection that nobody opens at this moment is one that does not answer.
                if let Ok(mut connection) = self.connection.try_lock() {
                    *connection = None;
                }
                Err(unavailable(format!("no answer within {limit:?}")))
            }
        };
        self.is_reached.store(answer.is_ok(), Ordering::Relaxed);
        answer.map_err(|error| self.named(error))
    }

    /// Returns the signal of the end of its connection; `None` if there is none.
    pub(super) async fn ended(&self) -> Option<Arc<Signal<()>>> {
        let connection = self.connection.lock().await;
        let connection = connection.as_ref()?;
        Some(Arc::clone(&connection.ended))
    }

    /// Returns its connection, or makes a new one.
    async fn connection(
        &self,
        service: &str,
        limit: Duration,
        hears: impl FnOnce() -> Hears,
    ) -> Result<Arc<Connection>, LockError> {
        let mut connection = self.connection.lock().await;
        if let Some(kept) = &*connection
            && kept.ended.get().is_none()
        {
            return Ok(Arc::clone(kept));
        }
        *connection = None;
        let new = Arc::new(self.open(service, limit, hears()).await?);
        Ok(Arc::clone(connection.insert(new)))
    }

    async fn open(
        &self,
        service: &str,
        limit: Duration,
        hears: Hears,
    ) -> Result<Connection, LockError> {
        let ended = Arc::new(Signal::new());
        let pushed = {
            let (service, ended) = (service.to_owned(), Arc::clone(&ended));
            move |push: PushInfo| match push.kind {
                PushKind::Message => {
                    if let Some(primary) = switched(&push.data, &service) {
                        survive(|| hears(primary));
                    }
                }
                PushKind::Disconnection => {
                    ended.set(());
                }
                _ => {}
            }
        };
        let opened = open(&self.server, pushed).await?;
        let client = opened.connection.clone();
        let requests = RequestPipeline::new(opened, limit, Arc::clone(&ended));
        let mut commands = Pipeline::with_capacity(2);
        commands.add_command(cmd("HELLO"));
        commands.add_command(cmd("SENTINEL").arg("MYID").clone());
        let mut answers = requests.ask_all(commands).await.map_err(lock_error)?;
        // It is only told from the others by this, and may refuse to say it.
        let id = answers.pop().and_then(Result::ok);
        if let Some(id) = id.and_then(|id| from_redis_value(id).ok()) {
            let _ = self.id.set(id);
        }
        let hello = answers.pop().transpose().map_err(lock_error)?;
        let hello = hello.as_ref().and_then(Hello::read);
        if hello.is_none_or(|hello| hello.mode != "sentinel") {
            return Err(invalid(
                "it is no sentinel; one server is written as redis://host:6379",
            ));
        }
        subscribe(client, SWITCHES, limit).await?;
        Ok(Connection { requests, ended })
    }

    fn named(&self, error: LockError) -> LockError {
        let host = &self.host;
        match error.kind() {
            LockErrorKind::InvalidConfig => error.about(format!(
                "sentinel `{host}`, whose own settings are `sentinel_username`, \
                 `sentinel_password` and `sentinel_tls`"
            )),
            _ => error.about(format!("sentinel `{host}`")),
        }
    }
}

impl Connection {
    /// Says what an error means, and gives the connection up if that is to blame.
    fn note(&self, error: RedisError) -> LockError {
        if fault(&error).is_uncertain() {
            self.ended.set(());
        }
        lock_error(error)
    }
}
