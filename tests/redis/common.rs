//! A server of a test's own, and a client that looks at it from outside.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{
    AcquireRequest, DistributedLock, Grant, Interest, LockError, LockGuard, LockMode, LockProvider,
    RedisProvider, RedisProviderBuilder,
};
use lock_tests::{FaultProxy, RedisServer, eventually};
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, cmd};

/// The time that no test exceeds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The time within which everything happens that must happen soon, on a loaded machine too.
pub(crate) const BOUND: Duration = Duration::from_secs(10);
/// By so much a lease may end sooner, since the server's clock is cut to whole milliseconds. The
/// holder's margin is longer.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Runs a test with a server of its own, where one is installed.
pub(crate) fn with_server<F>(test: impl FnOnce(Server) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    lock_tests::run(DEADLINE, async move {
        if let Some(server) = RedisServer::start_plain() {
            test(Server::of(server).await).await;
        }
    });
}

/// A server, and a connection that has nothing to do with the library.
pub(crate) struct Server {
    pub(crate) process: RedisServer,
    pub(crate) raw: Raw,
}

impl Server {
    pub(crate) async fn of(process: RedisServer) -> Self {
        let raw = Raw::connect(&process.url()).await;
        Self { process, raw }
    }

    pub(crate) fn builder(&self) -> RedisProviderBuilder {
        RedisProvider::builder(self.process.url())
    }

    /// Reads the server's clock in microseconds.
    pub(crate) async fn clock(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.raw.ask("TIME").await;
        seconds * 1_000_000 + micros
    }

    pub(crate) async fn provider(&self) -> Arc<RedisProvider> {
        connected(self.builder()).await
    }

    /// Makes a provider with a lease so long that its end settles nothing in the test.
    pub(crate) async fn provider_with_long_lease(&self) -> Arc<RedisProvider> {
        connected(self.builder().lease(Duration::from_secs(600))).await
    }
}

/// Makes a server the replica of another one, through a proxy, and waits until it has its data.
pub(crate) async fn follow(primary: &Server, replica: &Server) -> FaultProxy {
    let replication = FaultProxy::start(primary.process.port()).await;
    // Not in five seconds, when more replicas may have come.
    let at_once = "CONFIG SET repl-diskless-sync-delay 0";
    primary.raw.ask::<String>(at_once).await;
    let port = replication.port();
    let follow = format!("REPLICAOF 127.0.0.1 {port}");
    replica.raw.ask::<String>(&follow).await;
    eventually("it follows", BOUND, || async {
        let state: String = replica.raw.ask("INFO replication").await;
        state.contains("master_link_status:up")
    })
    .await;
    replication
}

pub(crate) async fn connected(builder: RedisProviderBuilder) -> Arc<RedisProvider> {
    Arc::new(builder.connect().await.expect("the provider connects"))
}

pub(crate) fn lock(provider: &Arc<RedisProvider>, name: &str) -> DistributedLock {
    DistributedLock::on(provider.clone(), name)
}

/// Takes a lock that is free or about to be.
pub(crate) async fn take(provider: &Arc<RedisProvider>, name: &str) -> LockGuard {
    lock(provider, name)
        .acquire_for(BOUND)
        .await
        .expect("free soon")
}

/// A connection of any Redis client.
#[derive(Clone)]
pub(crate) struct Raw(MultiplexedConnection);

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        Self(connecting.await.expect("the server answers"))
    }

    /// Sends a command, written as in `redis-cli` and without quotes.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command)
            .await
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub(crate) async fn try_ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split(' ');
        let mut command = cmd(words.next().expect("a command"));
        words.for_each(|word| {
            command.arg(word);
        });
        command.query_async(&mut self.0.clone()).await
    }

    /// Sends `SET key owner NX PX ms`, as every client of this kind takes a lock.
    pub(crate) async fn set_nx(&self, key: &str, owner: &str) -> bool {
        let answer: Option<String> = self.ask(&format!("SET {key} {owner} NX PX 60000")).await;
        answer.is_some()
    }

    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        self.ask(&format!("GET {key}")).await
    }

    /// Returns how many wait for the lock of this key, which has no hash tag of its own.
    pub(crate) async fn waiting(&self, key: &str) -> usize {
        self.ask(&format!("LLEN {{{key}}}:lk1:waiters")).await
    }

    pub(crate) async fn until_waiting(&self, key: &str, count: usize) {
        eventually("so many wait", BOUND, || async {
            self.waiting(key).await == count
        })
        .await;
    }

    pub(crate) async fn until_gone(&self, key: &str, bound: Duration) -> Duration {
        eventually("the key is gone", bound, || async {
            self.get(key).await.is_none()
        })
        .await
    }

    /// Returns one number of `INFO`.
    pub(crate) async fn info(&self, name: &str) -> u64 {
        let text: String = self.ask("INFO everything").await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("INFO has {name}"))
    }
}

/// Makes a request for a mode of a lock.
pub(crate) fn request(
    name: &str,
    mode: LockMode,
    lease: Duration,
    waits: bool,
) -> (AcquireRequest, Interest) {
    let (request, interest) = AcquireRequest::new(name, lease, waits).expect("random numbers");
    (request.with_mode(mode), interest)
}

/// So long that its end settles nothing in a test.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Asks a provider itself, as the library does, and does not wait.
pub(crate) async fn try_enter(
    provider: &RedisProvider,
    name: &str,
    mode: LockMode,
) -> Result<Grant, LockError> {
    provider.acquire(&request(name, mode, LONG, false).0).await
}

/// Asks a provider itself, and waits.
pub(crate) async fn enter(provider: &RedisProvider, name: &str, mode: LockMode) -> Grant {
    let (request, _interest) = request(name, mode, LONG, true);
    let acquiring = tokio::time::timeout(BOUND, provider.acquire(&request));
    acquiring.await.expect("in time").expect("granted")
}

/// Does the same in a task of its own, with this lease.
pub(crate) fn entering(
    provider: &Arc<RedisProvider>,
    name: &str,
    mode: LockMode,
    lease: Duration,
) -> (tokio::task::JoinHandle<Result<Grant, LockError>>, Interest) {
    let (request, interest) = request(name, mode, lease, true);
    let provider = Arc::clone(provider);
    let task = tokio::spawn(async move { provider.acquire(&request).await });
    (task, interest)
}

/// Makes the mode that takes so many permits of so many.
pub(crate) fn permits(limit: u32, take: u32) -> LockMode {
    let [limit, take] = [limit, take].map(|it| NonZeroU32::new(it).expect("not zero"));
    LockMode::Permits { limit, take }
}

impl Raw {
    pub(crate) async fn count(&self, command: &str) -> u64 {
        self.ask(command).await
    }

    /// Waits until a number that the server tells is this.
    pub(crate) async fn until(&self, command: &str, number: u64) {
        eventually(command, BOUND, || async {
            self.count(command).await == number
        })
        .await;
    }

    /// Waits until nothing is left but the counter.
    pub(crate) async fn until_nothing_is_left(&self) {
        eventually("nothing is left", BOUND, || async {
            let keys: Vec<String> = self.ask("KEYS *").await;
            keys.iter().all(|key| key == "lk1:fence")
        })
        .await;
    }

    /// Returns how many scripts were asked for.
    pub(crate) async fn scripts(&self) -> u64 {
        let stats: String = self.ask("INFO commandstats").await;
        ["cmdstat_eval:calls=", "cmdstat_evalsha:calls="]
            .iter()
            .filter_map(|name| stats.split_once(name))
            .filter_map(|(_, rest)| rest.split_once(',')?.0.parse::<u64>().ok())
            .sum()
    }

    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.0.clone()
    }
}
