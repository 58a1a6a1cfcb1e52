//! One connection: what a server must be, and how scripts are run on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{PushInfo, PushKind, RedisResult, Value};

use super::address::{HostPort, as_sentinel};
use super::client::Server;
use super::error::{TOO_OLD, is_forgotten, lock_error};
use super::hello::Hello;
use super::keys::Naming;
use super::notifications::Notifications;
use super::opening::{open, subscribe};
use super::pipeline::RequestPipeline;
use super::script::{By, RAISE_TOKENS, Script};
use super::settings::Settings;
use crate::LockError;
use crate::background;
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::providers::kit::error::{unavailable, unsupported};
use crate::providers::kit::version;
use crate::signal::Signal;
use crate::wake::survive;

/// The oldest version of Redis that has what the scripts need.
const OLDEST: (u32, u32) = (6, 2);
/// How often a connection raises the fencing counter to the server's clock again.
const RAISES_EVERY: Duration = Duration::from_secs(60 * 60);

/// The scripts with which locks are released.
#[derive(Clone, Copy)]
pub(super) enum Releasing {
    One,
    Several,
    ReadOrWrite,
    Permits,
}

/// A connection, on the background runtime. Requests and published grants share it. So a grant can
/// only be missed together with everything else, and then the waiter asks again.
pub(super) struct Connection {
    requests: RequestPipeline,
    ended: Arc<Signal<()>>,
    /// The address under which sentinels know the server.
    announced: Option<HostPort>,
    served: AtomicBool,
    /// Which scripts that release the server is known to know.
    known: [AtomicBool; 4],
    /// When the server may grant locks, if it has started so recently that it may not yet.
    grants_from: Option<Timestamp>,
}

impl Connection {
    /// Connects, subscribes, and raises the fencing counter. All this must come before the first
    /// grant.
    pub(super) async fn open(
        settings: &Settings,
        server: &Server,
        naming: &Naming,
        notifications: &Arc<Notifications>,
    ) -> Result<Arc<Self>, LockError> {
        let ended = Arc::new(Signal::new());
        let pushed = {
            let (notifications, ended) = (Arc::clone(notifications), Arc::clone(&ended));
            move |push: PushInfo| match push.kind {
                // A server that is no longer asked does not grant either: behind the same address
                // there may be another one by now.
                PushKind::Message if ended.get().is_none() => {
                    // It may wake any task, and must not end the connection.
                    survive(|| notifications.deliver(&push.data));
                }
                PushKind::Disconnection => {
                    ended.set(());
                }
                _ => {}
            }
        };
        let opened = open(server, pushed).await?;
        let client = opened.connection.clone();
        let response_timeout = settings.common.response_timeout;
        let requests = RequestPipeline::new(opened, response_timeout, Arc::clone(&ended));
        let mut connection = Self {
            requests,
            ended,
            announced: server.announced().cloned(),
            served: AtomicBool::new(false),
            known: [const { AtomicBool::new(false) }; 4],
            grants_from: None,
        };
        connection.check_server(server).await?;
        connection.grants_from = connection.restarted(settings.restart_delay).await?;
        let connection = Arc::new(connection);
        subscribe(client, &naming.channel, response_timeout).await?;
        let ahead = settings.tokens.ahead;
        let raised = connection.raise_tokens(&naming.fence, ahead).await;
        if raised.map_err(lock_error)? != Value::Int(1) {
            return Err(no_redis());
        }
        connection.served.store(false, Ordering::Relaxed);
        background::spawn_beside(keep_tokens_raised(
            Arc::downgrade(&connection),
            Arc::clone(&connection.ended),
            naming.fence.clone(),
            ahead,
        ));
        Ok(connection)
    }

    /// Checks that this can hold locks: a primary that is not too old. `HELLO` tells, and every
    /// user may call it.
    async fn check_server(&self, server: &Server) -> Result<(), LockError> {
        let answer = self.query(redis::cmd("HELLO")).await.map_err(lock_error)?;
        let Hello {
            role,
            mode,
            version,
        } = Hello::read(&answer).ok_or_else(no_redis)?;
        // A version that cannot be read is taken for a fork's.
        if version::numbers(&version).is_some_and(|version| version < OLDEST) {
            return Err(unsupported(format!("{TOO_OLD}, got {version}")));
        }
        if mode == "sentinel" {
            return Err(unsupported(format!(
                "expected one server, got a sentinel; for sentinels, write {}",
                as_sentinel(server.address())
            )));
        }
        if mode == "cluster" {
            return Err(unsupported("expected one server, got a cluster"));
        }
        if role == "replica" || role == "slave" {
            return Err(unavailable("the server is a replica: expected the primary"));
        }
        Ok(())
    }

    /// Returns when the server may grant locks, if it has started less than `delay` ago.
    async fn restarted(&self, delay: Duration) -> Result<Option<Timestamp>, LockError> {
        if delay.is_zero() {
            return Ok(None);
        }
        let asked_at = Timestamp::now();
        let uptime = self.info("server", "uptime_in_seconds").await;
        let uptime =
            uptime.map_err(|error| error.about("`restart_delay` needs the server's age"))?;
        let Ok(uptime) = uptime.parse().map(Duration::from_secs) else {
            return Err(unsupported(
                "`restart_delay` needs the server's age, which it does not tell",
            ));
        };
        // It is the difference of two times without their fractions, up to a second too high.
        let age_at_least = uptime.saturating_sub(Duration::from_secs(1));
        let left = delay.saturating_sub(age_at_least);
        if left.is_zero() {
            return Ok(None);
        }
        tracing::warn!(
            ?uptime,
            ?left,
            "the Redis server has started less than `restart_delay` ago; it grants no lock yet"
        );
        Ok(Some(asked_at + left))
    }

    /// Asks for one field of `INFO`; empty if there is none.
    async fn info(&self, section: &str, name: &str) -> Result<String, LockError> {
        let command = redis::cmd("INFO").arg(section).to_owned();
        let answer = self.query(command).await.map_err(lock_error)?;
        let text = redis::from_redis_value::<String>(answer).unwrap_or_default();
        Ok(info_field(&text, name).to_owned())
    }

    /// Returns how long the server grants no lock yet, because it may have restarted without its
    /// data.
    pub(super) fn grants_after(&self) -> Option<Duration> {
        let left = self.grants_from?.remaining();
        (!left.is_zero()).then_some(left)
    }

    /// Asks for the policy by which the server may throw locks away, if it may and the user may
    /// know.
    pub(super) async fn evicts_by(&self) -> Option<String> {
        let command = redis::cmd("INFO").arg("memory").to_owned();
        // An answer to this says nothing about the connection's use for locks.
        let answer = self.requests.ask(command).await.ok()?;
        let text = redis::from_redis_value::<String>(answer).ok()?;
        let policy = info_field(&text, "maxmemory_policy");
        let evicts = !matches!(policy, "noeviction" | "") && info_field(&text, "maxmemory") != "0";
        evicts.then(|| policy.to_owned())
    }

    /// Makes later tokens higher than the server's clock, put forward by this.
    pub(super) async fn raise_tokens(&self, fence: &str, ahead: u64) -> RedisResult<Value> {
        let ahead = ahead.to_string();
        self.run(&RAISE_TOKENS, &[fence], &[&ahead]).await
    }

    /// Runs a script, in one round trip unless the server has forgotten it.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[&str],
        args: &[&str],
    ) -> RedisResult<Value> {
        match self.query(script.command(By::Hash, keys, args)).await {
            Err(error) if is_forgotten(&error) => {
                // This is a future of its own, so that the path that all take stays small.
                Box::pin(self.run_by_text(script, keys, args)).await
            }
            answer => answer,
        }
    }

    /// Runs a script by its text. It may be asked for when no answer comes, and then even that the
    /// server has forgotten it would not be learnt.
    pub(super) async fn run_by_text(
        &self,
        script: &Script,
        keys: &[&str],
        args: &[&str],
    ) -> RedisResult<Value> {
        self.query(script.command(By::Text, keys, args)).await
    }

    pub(super) async fn query(&self, command: redis::Cmd) -> RedisResult<Value> {
        let answer = self.requests.ask(command).await;
        self.note(&answer);
        answer
    }

    /// Sends commands in one go, and returns an answer for each, in order.
    pub(super) async fn query_all(
        &self,
        commands: redis::Pipeline,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let answers = self.requests.ask_all(commands).await;
        self.note(&answers);
        answers
    }

    fn note<T>(&self, answer: &RedisResult<T>) {
        if answer.is_ok() && !self.has_served() {
            self.served.store(true, Ordering::Relaxed);
        }
    }

    /// Says whether it was of any use since it was opened.
    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Notes that the server knows the script that releases.
    pub(super) fn has_learnt(&self, script: Releasing) {
        let known = &self.known[script as usize];
        if !known.load(Ordering::Relaxed) {
            known.store(true, Ordering::Relaxed);
        }
    }

    /// Says whether the server knew the script that releases. If not, it refuses the first request.
    pub(super) fn knows(&self, script: Releasing) -> bool {
        self.known[script as usize].load(Ordering::Relaxed)
    }

    /// Returns the address under which sentinels know the server.
    pub(super) fn announced(&self) -> Option<&HostPort> {
        self.announced.as_ref()
    }

    /// Says that it is not to be used for anything new.
    pub(super) fn end(&self) {
        self.ended.set(());
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Returns the signal of its end, which may outlive it.
    pub(super) fn end_signal(&self) -> Arc<Signal<()>> {
        Arc::clone(&self.ended)
    }

    /// Waits until the connection is gone or given up.
    pub(super) async fn ended(&self) {
        self.ended.wait().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

/// Keeps the counter alive for clients that stay connected for longer than it lives.
async fn keep_tokens_raised(
    connection: Weak<Connection>,
    ended: Arc<Signal<()>>,
    fence: String,
    ahead: u64,
) {
    while let First::Right(()) = select(ended.wait(), tokio::time::sleep(RAISES_EVERY)).await {
        let Some(connection) = connection.upgrade() else {
            return;
        };
        if let Err(error) = connection.raise_tokens(&fence, ahead).await {
            tracing::debug!(%error, "could not raise the fencing counter");
        }
    }
}

fn no_redis() -> LockError {
    unsupported("expected a Redis or Valkey server, and what answers does not do so as one")
}

fn info_field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or("")
}
