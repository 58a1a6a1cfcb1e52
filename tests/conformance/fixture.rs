//! The fixture of a case: a provider, and how to reach the same locks from elsewhere.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{BoxFuture, LockMode, LockName, LockProvider};
use lock_tests::any_lock::ModeWord;
use lock_tests::{AnyGuard, AnyLock, Probe};

use crate::filler::Filler;

/// The time that no test exceeds.
const DEADLINE: Duration = Duration::from_secs(60);

/// Makes a provider of the same locks, for one that has no URL.
type Another = Box<dyn Fn() -> Arc<dyn LockProvider> + Send + Sync>;
/// Takes a lock away from whoever holds it, in a way of which the holder can know.
type Loses = Box<dyn Fn(&str) -> BoxFuture<'static, ()> + Send + Sync>;

/// A provider under test, with locks that no other test sees.
pub(crate) struct Fixture {
    /// The URL at which another process finds the same locks; `None` if none can.
    url: Option<String>,
    provider: Arc<dyn LockProvider>,
    /// The kind of the locks that the cases about mutexes get.
    mode: LockMode,
    /// What makes all permits but one taken, where the last one stands for a mutex.
    filler: Option<Filler>,
    another: Option<Another>,
    loses: Option<Loses>,
    /// The shortest lease that this provider's server keeps reliably, for cases about leases.
    short_lease: Duration,
    /// The time until a lock that was given up is taken, on a loaded machine.
    bound: Duration,
    /// The things that must live as long as the provider, such as its server.
    resources: Vec<Box<dyn Any + Send + Sync>>,
}

impl Fixture {
    pub(crate) fn new(provider: Arc<dyn LockProvider>) -> Self {
        Self {
            url: None,
            provider,
            mode: LockMode::Exclusive,
            filler: None,
            another: None,
            loses: None,
            short_lease: Duration::from_secs(1),
            bound: Duration::from_secs(10),
            resources: Vec::new(),
        }
    }

    /// Makes the fixture of a provider that every process can connect to by this URL.
    pub(crate) async fn connect(url: String) -> Self {
        let provider = lock_runtime::connect(&url)
            .await
            .expect("the provider connects");
        Self {
            url: Some(url),
            ..Self::new(provider)
        }
    }

    /// Keeps something until the fixture is dropped, which is after its provider.
    pub(crate) fn with(mut self, resource: impl Any + Send + Sync) -> Self {
        self.resources.push(Box::new(resource));
        self
    }

    /// Sets the time until a lock that was given up is taken.
    pub(crate) fn with_bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// Says how to make a provider that is apart from this one as that of another process is.
    pub(crate) fn with_another(
        mut self,
        another: impl Fn() -> Arc<dyn LockProvider> + Send + Sync + 'static,
    ) -> Self {
        self.another = Some(Box::new(another));
        self
    }

    /// Says how to take a reader–writer lock or a semaphore away from its holders.
    pub(crate) fn with_losses(
        mut self,
        loses: impl Fn(&str) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        self.loses = Some(Box::new(loses));
        self
    }

    /// Lets locks of this mode stand for mutexes. Where there are more permits than one, all others
    /// are taken before.
    pub(crate) async fn of_mode(mut self, mode: LockMode) -> Self {
        if let LockMode::Permits { limit, take } = mode
            && limit > take
        {
            let elsewhere = self.elsewhere().await;
            self.filler = Some(Filler::new(
                elsewhere,
                limit.get(),
                limit.get() - take.get(),
            ));
        }
        self.mode = mode;
        self
    }

    /// Returns what the cases about mutexes want of a lock.
    pub(crate) fn mode(&self) -> LockMode {
        self.mode
    }

    /// Tells whether the guards of these locks have fencing tokens.
    pub(crate) fn has_tokens(&self) -> bool {
        let permits = matches!(self.mode, LockMode::Permits { .. });
        self.provider.capabilities().fencing_tokens && !permits
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

    pub(crate) fn lock(&self, name: impl Into<LockName>) -> AnyLock {
        self.lock_on(self.provider.clone(), name)
    }

    pub(crate) fn lock_on(
        &self,
        provider: Arc<dyn LockProvider>,
        name: impl Into<LockName>,
    ) -> AnyLock {
        let name = name.into();
        self.fill(&name);
        AnyLock::on(self.mode, provider, name)
    }

    fn fill(&self, name: &LockName) {
        if let Some(filler) = &self.filler {
            filler.fill(name, self.bound);
        }
    }

    /// Returns a lock for what this mode wants of it.
    pub(crate) fn of(&self, mode: LockMode, name: &str) -> AnyLock {
        AnyLock::on(mode, self.provider.clone(), name)
    }

    /// Returns a second provider for the same locks, if there can be one.
    pub(crate) async fn second_provider(&self) -> Option<Arc<dyn LockProvider>> {
        if let Some(another) = &self.another {
            return Some(another());
        }
        let url = self.url.as_ref()?;
        Some(
            lock_runtime::connect(url)
                .await
                .expect("the provider connects again"),
        )
    }

    /// Returns a second provider for the same locks, or this one where there is none.
    pub(crate) async fn elsewhere(&self) -> Arc<dyn LockProvider> {
        let second = self.second_provider().await;
        second.unwrap_or_else(|| self.provider.clone())
    }

    /// Takes a reader–writer lock or a semaphore away from its holders.
    pub(crate) async fn lose(&self, name: &str) {
        let loses = self.loses.as_ref();
        loses.expect("a provider that can lose a lock")(name).await;
    }

    /// Starts another process for the lock of this name, which is one of those that stand for
    /// mutexes.
    pub(crate) fn probe(&self, name: &str) -> Probe {
        let mut probe = self.plain_probe(name);
        if self.mode != LockMode::Exclusive {
            self.fill(&LockName::from(name));
            probe.tell(&format!("as {}", ModeWord(self.mode)));
        }
        probe
    }

    /// Starts another process.
    pub(crate) fn plain_probe(&self, name: &str) -> Probe {
        let url = self
            .url
            .as_ref()
            .expect("a provider that processes share has a URL");
        Probe::start(Path::new(env!("CARGO_BIN_EXE_lock-probe")), url, name)
    }

    /// Takes a lock that is free or about to be.
    pub(crate) async fn take(&self, lock: &AnyLock) -> AnyGuard {
        let taken = lock.acquire_for(self.bound).await;
        taken.unwrap_or_else(|error| panic!("free within {:?}: {error}", self.bound))
    }

    /// Checks that the lock is free, now or within the bound of a release in the background.
    pub(crate) async fn assert_free(&self, lock: &AnyLock) {
        self.take(lock)
            .await
            .release()
            .await
            .expect("a held lock can be released");
    }

    /// Checks that somebody holds the lock.
    pub(crate) async fn assert_held(&self, lock: &AnyLock) {
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
pub(crate) fn run<C, F>(fixture: impl Fn() -> BoxFixture + Send + 'static, case: C)
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
        // The provider for tests is in no table for users.
        if capabilities.provider != "test" {
            crate::capabilities::check(capabilities);
        }
        let leases = capabilities.lease.is_some();
        let processes = fixture.url.is_some();
        let apart = processes || fixture.another.is_some();
        let losses = fixture.loses.is_some();
        let fair = capabilities.fair && apart;
        let mutexes = fixture.mode == LockMode::Exclusive;
        let holders = capabilities.holders;
        let (rw, permits) = (capabilities.read_write, capabilities.semaphore);
        let upgrades = capabilities.upgradeable;
        assert_eq!(permits, capabilities.many_permits, "several permits");
        for (group, expected) in [
            ("tokens", fixture.has_tokens()),
            ("leases", leases),
            ("processes", processes),
            ("leased_processes", leases && processes),
            ("read_write", mutexes && rw),
            ("read_write_apart", mutexes && rw && apart),
            ("read_write_fair", mutexes && rw && fair),
            ("read_write_losses", mutexes && rw && losses),
            ("read_write_processes", mutexes && rw && processes),
            ("upgradeable", mutexes && upgrades),
            // All that have the one and processes also have leases.
            ("upgradeable_processes", mutexes && upgrades && processes),
            ("upgradeable_losses", mutexes && upgrades && losses),
            ("permits", mutexes && permits),
            ("permits_apart", mutexes && permits && apart),
            ("permits_losses", mutexes && permits && losses),
            ("permits_processes", mutexes && permits && processes),
            ("several", mutexes),
            ("several_processes", mutexes && processes),
            ("several_leased_processes", mutexes && leases && processes),
            ("holders", mutexes && holders),
            ("holders_read_write", mutexes && holders && rw),
            ("holders_permits", mutexes && holders && permits),
            ("holders_processes", mutexes && holders && processes),
            ("mutexes_only", mutexes && !rw && !permits),
        ] {
            assert_eq!(groups.contains(&group), expected, "{group}");
        }
    });
}
