//! A server of a test's own, and a client that looks at it from outside.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{
    AcquireRequest, DistributedLock, Grant, Interest, LockError, LockErrorKind, LockGuard,
    LockMode, LockProvider, PostgresProvider, PostgresProviderBuilder,
};
use lock_tests::postgres::PostgresOptions;
use lock_tests::{FaultProxy, PostgresServer, Probe, eventually};
use tokio::task::JoinHandle;
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

/// So long that its end settles nothing in a test.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Makes a request for a mode of a lock.
pub(crate) fn request(name: &str, mode: LockMode, waits: bool) -> (AcquireRequest, Interest) {
    let (request, interest) = AcquireRequest::new(name, LONG, waits).expect("random numbers");
    (request.with_mode(mode), interest)
}

/// Asks a provider itself, as the library does, and does not wait.
pub(crate) async fn try_enter(
    provider: &PostgresProvider,
    name: &str,
    mode: LockMode,
) -> Result<Grant, LockError> {
    provider.acquire(&request(name, mode, false).0).await
}

/// Checks that a provider is refused what somebody has.
pub(crate) async fn assert_refused(provider: &PostgresProvider, name: &str, mode: LockMode) {
    let error = try_enter(provider, name, mode).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Contended, "{mode:?}: {error}");
}

/// Asks a provider itself, and waits.
pub(crate) async fn enter(provider: &PostgresProvider, name: &str, mode: LockMode) -> Grant {
    let (request, _interest) = request(name, mode, true);
    let acquiring = tokio::time::timeout(BOUND, provider.acquire(&request));
    acquiring.await.expect("in time").expect("granted")
}

/// A request under way.
pub(crate) type Entering = JoinHandle<Result<Grant, LockError>>;

/// Does the same in a task of its own.
pub(crate) fn entering(
    provider: &Arc<PostgresProvider>,
    name: &str,
    mode: LockMode,
) -> (Entering, Interest) {
    let (request, interest) = request(name, mode, true);
    let provider = Arc::clone(provider);
    let task = tokio::spawn(async move { provider.acquire(&request).await });
    (task, interest)
}

/// Waits until the grant is there.
pub(crate) async fn entered(entering: Entering) -> Grant {
    let entering = tokio::time::timeout(BOUND, entering);
    entering.await.expect("in time").unwrap().expect("granted")
}
