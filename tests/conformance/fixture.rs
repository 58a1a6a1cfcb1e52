//! The fixture of a case: a provider, and how to reach the same locks from elsewhere.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::testing::TestProvider;
use lock_runtime::{DistributedLock, InProcessProvider, LockGuard, LockName, LockProvider};
#[cfg(feature = "postgres")]
use lock_tests::PostgresServer;
#[cfg(feature = "redis")]
use lock_tests::RedisServer;
#[cfg(feature = "redis")]
use lock_tests::redis::{LEAST_PRIVILEGE, RedisOptions};
#[cfg(feature = "zookeeper")]
use lock_tests::zookeeper::SharedServer;
use lock_tests::{Probe, Scratch, unique};

/// The time that no test exceeds.
const DEADLINE: Duration = Duration::from_secs(60);

/// A provider under test, with locks that no other test sees.
pub(crate) struct Fixture {
    /// The URL at which another process finds the same locks; `None` if none can.
    url: Option<String>,
    provider: Arc<dyn LockProvider>,
    /// The shortest lease that this provider's server keeps reliably, for cases about leases.
    short_lease: Duration,
    /// The time until a lock that was given up is taken, on a loaded machine.
    bound: Duration,
    /// The things that must live as long as the provider, such as its server.
    resources: Vec<Box<dyn Any + Send + Sync>>,
}

impl Fixture {
    fn new(provider: Arc<dyn LockProvider>) -> Self {
        Self {
            url: None,
            provider,
            short_lease: Duration::from_secs(1),
            bound: Duration::from_secs(10),
            resources: Vec::new(),
        }
    }

    /// Makes the fixture of a provider that every process can connect to by this URL.
    async fn connect(url: String) -> Self {
        let provider = lock_runtime::connect(&url)
            .await
            .expect("the provider connects");
        Self {
            url: Some(url),
            ..Self::new(provider)
        }
    }

    /// Keeps something until the fixture is dropped, which is after its provider.
    fn with(mut self, resource: impl Any + Send + Sync) -> Self {
        self.resources.push(Box::new(resource));
        self
    }

    pub(crate) fn provider(&self) -> &Arc<dyn LockProvider> {
        &self.provider
    }

    pub(crate) fn bound(&self) -> Duration {
        self.bound
    }

    pub(crate) fn short_lease(&self) -> Duration {
        self.short_lease
    }

    pub(crate) fn lock(&self, name: impl Into<LockName>) -> DistributedLock {
        DistributedLock::on(self.provider.clone(), name)
    }

    /// Returns a second provider for the same locks, if there can be one.
    pub(crate) async fn second_provider(&self) -> Option<Arc<dyn LockProvider>> {
        let url = self.url.as_ref()?;
        Some(
            lock_runtime::connect(url)
                .await
                .expect("the provider connects again"),
        )
    }

    /// Starts another process for the lock of this name.
    pub(crate) fn probe(&self, name: &str) -> Probe {
        let url = self
            .url
            .as_ref()
            .expect("a provider that processes share has a URL");
        Probe::start(Path::new(env!("CARGO_BIN_EXE_lock-probe")), url, name)
    }

    /// Takes a lock that is free or about to be.
    pub(crate) async fn take(&self, lock: &DistributedLock) -> LockGuard {
        let taken = lock.acquire_for(self.bound).await;
        taken.unwrap_or_else(|error| panic!("free within {:?}: {error}", self.bound))
    }

    /// Checks that the lock is free, now or within the bound of a release in the background.
    pub(crate) async fn assert_free(&self, lock: &DistributedLock) {
        self.take(lock)
            .await
            .release()
            .await
            .expect("a held lock can be released");
    }

    /// Checks that somebody holds the lock.
    pub(crate) async fn assert_held(&self, lock: &DistributedLock) {
        assert!(
            lock.try_acquire()
                .await
                .expect("the provider answers")
                .is_none(),
            "held elsewhere"
        );
    }
}

pub(crate) type BoxFixture = std::pin::Pin<Box<dyn Future<Output = Option<Fixture>> + Send>>;

/// Runs one case on a fixture of its own.
pub(crate) fn run<C, F>(fixture: fn() -> BoxFixture, case: C)
where
    C: FnOnce(Arc<Fixture>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    lock_tests::run(DEADLINE, async move {
        // Without the server, the test is skipped, or fails where the server is required.
        if let Some(fixture) = fixture().await {
            case(Arc::new(fixture)).await;
        }
    });
}

/// Checks that a provider is tested for everything that it can do.
pub(crate) fn check_groups(fixture: fn() -> BoxFixture, groups: &'static [&'static str]) {
    run(fixture, move |fixture| async move {
        let capabilities = fixture.provider.capabilities();
        assert_eq!(
            groups.contains(&"tokens"),
            capabilities.fencing_tokens,
            "fencing tokens"
        );
        let (leases, processes) = (capabilities.lease.is_some(), fixture.url.is_some());
        assert_eq!(groups.contains(&"leases"), leases, "leases");
        assert_eq!(groups.contains(&"processes"), processes, "other processes");
        let both = leases && processes;
        assert_eq!(
            groups.contains(&"leased_processes"),
            both,
            "leases of other processes"
        );
    });
}

pub(crate) fn in_process() -> BoxFixture {
    Box::pin(async { Some(Fixture::new(Arc::new(InProcessProvider::new()))) })
}

pub(crate) fn testing() -> BoxFixture {
    Box::pin(async { Some(Fixture::new(Arc::new(TestProvider::new()))) })
}

#[cfg(feature = "file")]
pub(crate) fn file() -> BoxFixture {
    Box::pin(async {
        let scratch = Scratch::new();
        let directory = scratch.join("locks");
        let url = format!("file:{}?key_prefix={}:", directory.display(), unique());
        Some(Fixture::connect(url).await.with(scratch))
    })
}

/// Uses one server for all tests, names that no other test has, and a lease so short that a case
/// may outlive it.
#[cfg(feature = "postgres")]
pub(crate) fn postgres() -> BoxFixture {
    Box::pin(async {
        let server = PostgresServer::shared()?;
        let url = format!("{}?key_prefix={}:&lease=3s", server.url(), unique());
        Some(Fixture::connect(url).await.with(server))
    })
}

/// Starts a server for each test, with a lease so short that a case may outlive it.
#[cfg(feature = "redis")]
pub(crate) fn redis() -> BoxFixture {
    Box::pin(async {
        let server = RedisServer::start_plain()?;
        let url = format!("{}?key_prefix={}:&lease=3s", server.url(), unique());
        Some(Fixture::connect(url).await.with(server))
    })
}

#[cfg(feature = "redis")]
pub(crate) fn redis_least_privilege() -> BoxFixture {
    Box::pin(async {
        let options = RedisOptions::default()
            .acl("user default off")
            .acl(&format!("user service on >secret {LEAST_PRIVILEGE}"));
        let server = options.start()?;
        let url = format!(
            "redis://service:secret@127.0.0.1:{}?key_prefix=MyApp1:&lease=3s",
            server.port()
        );
        Some(Fixture::connect(url).await.with(server))
    })
}

/// Uses one server for all tests, since a Java machine takes long to start, and a directory for
/// each test.
#[cfg(feature = "zookeeper")]
pub(crate) fn zookeeper() -> BoxFixture {
    Box::pin(async {
        let server = SharedServer::find()?;
        let url = format!(
            "zookeeper://127.0.0.1:{}/{}?key_prefix=MyApp1:&lease=4s",
            server.port(),
            unique()
        );
        Some(Fixture::connect(url).await)
    })
}
