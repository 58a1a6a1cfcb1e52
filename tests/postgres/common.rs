//! A server of a test's own, and a client that looks at it from outside.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, LockGuard, PostgresProvider, PostgresProviderBuilder};
use lock_tests::postgres::PostgresOptions;
use lock_tests::{FaultProxy, PostgresServer, Probe, eventually};
use tokio_postgres::{Client, NoTls};

/// The time that no test exceeds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// The time within which everything happens that must happen soon, on a loaded machine too.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// Runs a test with a server of its own, where one is installed.
pub(crate) fn with_server<F>(test: impl FnOnce(Server) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    with_server_of(PostgresOptions::default(), test);
}

pub(crate) fn with_server_of<F>(
    options: PostgresOptions,
    test: impl FnOnce(Server) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    lock_tests::run(DEADLINE, async move {
        if let Some(process) = options.start() {
            test(Server::of(process).await).await;
        }
    });
}

/// A server, and a session that has nothing to do with the library.
pub(crate) struct Server {
    pub(crate) process: PostgresServer,
    pub(crate) raw: Client,
}

impl Server {
    pub(crate) async fn of(process: PostgresServer) -> Self {
        let raw = raw(&process).await;
        Self { process, raw }
    }

    pub(crate) fn builder(&self) -> PostgresProviderBuilder {
        PostgresProvider::builder(self.process.url())
    }

    pub(crate) async fn provider(&self) -> Arc<PostgresProvider> {
        connected(self.builder()).await
    }

    /// Returns the number that a query answers.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.raw.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Returns how many sessions the library has open.
    pub(crate) async fn sessions(&self) -> i64 {
        let of_ours = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        self.count(of_ours).await
    }

    /// Lets the library open no session beyond so many.
    pub(crate) async fn allow_sessions(&self, sessions: i64) {
        let sql = format!("ALTER ROLE app CONNECTION LIMIT {sessions}");
        self.raw.batch_execute(&sql).await.unwrap();
    }

    /// Returns how many advisory locks are held, or waited for.
    pub(crate) async fn locks(&self, granted: bool) -> i64 {
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted = ";
        self.count(&format!("{sql}{granted}")).await
    }

    pub(crate) async fn until_waiting(&self, waiting: i64) {
        eventually("so many wait", BOUND, || async {
            self.locks(false).await == waiting
        })
        .await;
    }

    pub(crate) async fn until_free(&self, bound: Duration) -> Duration {
        eventually("nothing is held or waited for", bound, || async {
            self.locks(true).await + self.locks(false).await == 0
        })
        .await
    }

    /// Ends the sessions that hold or wait for an advisory lock.
    pub(crate) async fn terminate(&self) -> u64 {
        let sql = "SELECT DISTINCT pg_terminate_backend(pid) FROM pg_locks \
                   WHERE locktype = 'advisory'";
        self.raw.execute(sql, &[]).await.unwrap()
    }
}

/// Connects any client.
pub(crate) async fn raw(server: &PostgresServer) -> Client {
    try_raw(server).await.expect("the server answers")
}

async fn try_raw(server: &PostgresServer) -> Result<Client, tokio_postgres::Error> {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Connects any client, as soon as a server that is coming back by itself takes it.
pub(crate) async fn raw_soon(server: &PostgresServer) -> Client {
    let start = Instant::now();
    loop {
        match try_raw(server).await {
            Ok(client) => return client,
            Err(error) => assert!(start.elapsed() < BOUND, "it comes back: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes a provider that reaches the server through a proxy.
pub(crate) async fn proxied(
    server: &PostgresServer,
    lease: Duration,
) -> (FaultProxy, Arc<PostgresProvider>) {
    let proxy = FaultProxy::start(server.port()).await;
    let provider = connected(through(&proxy).lease(lease)).await;
    (proxy, provider)
}

pub(crate) fn through(proxy: &FaultProxy) -> PostgresProviderBuilder {
    let url = format!("postgres://app@127.0.0.1:{}/postgres", proxy.port());
    PostgresProvider::builder(url)
}

/// Starts another process on this lock.
pub(crate) fn probe(server: &PostgresServer, lease: Duration, name: &str) -> Probe {
    let url = format!("{}?lease={}ms", server.url(), lease.as_millis());
    let program = env!("CARGO_BIN_EXE_lock-probe");
    Probe::start(Path::new(program), &url, name)
}

pub(crate) async fn connected(builder: PostgresProviderBuilder) -> Arc<PostgresProvider> {
    Arc::new(builder.connect().await.expect("the provider connects"))
}

pub(crate) fn lock(provider: &Arc<PostgresProvider>, name: &str) -> DistributedLock {
    DistributedLock::on(provider.clone(), name)
}

/// Takes a lock that is free or about to be.
pub(crate) async fn take(provider: &Arc<PostgresProvider>, name: &str) -> LockGuard {
    lock(provider, name)
        .acquire_for(BOUND)
        .await
        .expect("free soon")
}

pub(crate) fn token(guard: &LockGuard) -> u64 {
    guard.fencing_token().expect("every grant has one").get()
}
