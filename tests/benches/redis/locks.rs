//! The contenders: this library, the raw commands, and other crates.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_redis_lock::{Locker, Options};
use distributed_lock_core::traits::{DistributedLock as _, LockHandle as _, LockProvider as _};
use distributed_lock_core::traits::{ReaderWriterLockProvider as _, SemaphoreProvider as _};
use distributed_lock_redis::{RedisDistributedLock, RedisLockProvider};
use lock_runtime::{DistributedLock, LockError, LockProvider, RedisProvider, distributed_lock};
use lock_runtime::{DistributedMultiLock, DistributedRwLock, DistributedSemaphore};
use rslock::LockManager;
use tokio::sync::OnceCell;

use crate::lock::{LEASE, Lock};
use crate::raw::Raw;
use crate::shared::{
    PERMITS, Permit, PolledPermit, PolledRead, PolledWrite, Read, Several, TokioRead, Write,
};

/// The connections of [`Kind::Rslock`] at most.
pub(crate) const MOST_CONNECTIONS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `SET NX PX`, and a script that compares and deletes.
    Raw,
    /// A script that does `SET NX PX` and `INCR`, and one that compares and deletes.
    RawScripts,
    Attribute,
    Prepared,
    /// Three names, taken together.
    Several,
    /// With `release = "background"`.
    AttributeInBackground,
    /// With `release_in_background()`.
    PreparedInBackground,
    Rslock,
    AsyncRedisLock,
    /// The crate `distributed-lock`. It does not wait, whatever the timeout, so the bench tries
    /// again.
    DistributedLock,
    /// A reader in this process alone: what tasks do that wait for nobody.
    TokioRead,
    /// The two scripts of a reader in the .NET library.
    RawRead,
    Read,
    Write,
    Permit,
    /// Readers, writers and permits of the crate `distributed-lock`, tried again in the same way.
    DistributedLockRead,
    DistributedLockWrite,
    DistributedLockPermit,
}

/// A contender, and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) kind: Kind,
    /// The pause between two attempts, if it polls.
    pub(crate) retry: Duration,
    /// The connections among which its tasks are divided. More than one only for [`Kind::Rslock`],
    /// which has a mutex for each.
    pub(crate) connections: usize,
}

impl Kind {
    const NAMES: [(Self, &'static str); 18] = [
        (Self::Raw, "raw-commands"),
        (Self::RawScripts, "raw-scripts"),
        (Self::Attribute, "attribute"),
        (Self::Prepared, "prepared"),
        (Self::Several, "several"),
        (Self::AttributeInBackground, "attribute-in-background"),
        (Self::PreparedInBackground, "prepared-in-background"),
        (Self::Rslock, "rslock"),
        (Self::AsyncRedisLock, "async-redis-lock"),
        (Self::DistributedLock, "distributed-lock"),
        (Self::TokioRead, "tokio-read"),
        (Self::RawRead, "raw-read"),
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Permit, "permit"),
        (Self::DistributedLockRead, "distributed-lock-read"),
        (Self::DistributedLockWrite, "distributed-lock-write"),
        (Self::DistributedLockPermit, "distributed-lock-permit"),
    ];

    pub(crate) fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(kind, _)| *kind == self);
        named.map_or("", |(_, name)| name)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(_, its)| *its == name);
        named.map(|(kind, _)| *kind)
    }

    /// Lists the commands that its clients send. The others in the server's statistics are its
    /// scripts'.
    pub(crate) fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Rslock | Self::DistributedLock | Self::Raw => &["set", "eval", "evalsha"],
            Self::DistributedLockRead => &["exists", "sadd", "pttl", "pexpire", "srem"],
            _ => &["eval", "evalsha"],
        }
    }

    /// Polls without a pause, or with the crate's own pause where it has one.
    pub(crate) fn usual(self) -> Way {
        let retry = match self {
            Self::Rslock => Duration::from_millis(200),
            Self::AsyncRedisLock | Self::DistributedLock => Duration::from_millis(100),
            Self::DistributedLockRead
            | Self::DistributedLockWrite
            | Self::DistributedLockPermit => Duration::from_millis(1),
            _ => Duration::ZERO,
        };
        self.every(retry)
    }

    /// Returns how many may hold it at once.
    pub(crate) fn at_once(self) -> u32 {
        match self {
            Self::TokioRead | Self::RawRead | Self::Read | Self::DistributedLockRead => u32::MAX,
            Self::Permit | Self::DistributedLockPermit => PERMITS,
            _ => 1,
        }
    }

    /// Returns the readers whom a writer of this kind excludes.
    pub(crate) fn its_readers(self) -> Self {
        match self {
            Self::DistributedLockWrite => Self::DistributedLockRead,
            _ => Self::Read,
        }
    }

    /// Returns the key of a semaphore, a sorted set of those who hold it.
    pub(crate) fn semaphore(self, number: u64) -> String {
        match self {
            Self::DistributedLockPermit => format!("distributed-lock:semaphore:bench:{number}"),
            _ => format!("bench:{number}"),
        }
    }

    pub(crate) fn every(self, retry: Duration) -> Way {
        Way {
            kind: self,
            retry,
            connections: 1,
        }
    }
}

impl Way {
    pub(crate) fn what(self) -> String {
        match (self.kind, self.retry.as_millis()) {
            (Kind::Raw, _) => "raw SET NX PX, compare and delete".to_owned(),
            (Kind::RawScripts, _) => "raw SET NX PX + INCR, and delete".to_owned(),
            (Kind::Attribute, _) => "attribute, placeholder in name".to_owned(),
            (Kind::Prepared, _) => "DistributedLock, prepared".to_owned(),
            (Kind::Several, _) => "DistributedMultiLock, three names".to_owned(),
            (Kind::AttributeInBackground, _) => "attribute, background".to_owned(),
            (Kind::PreparedInBackground, _) => "prepared, background".to_owned(),
            (Kind::Rslock, _) if self.connections > 1 => {
                format!("rslock, {} connections", self.connections)
            }
            // Its pauses are random, up to this.
            (Kind::Rslock, retry) => format!("rslock, retry 0–{retry} ms"),
            (Kind::AsyncRedisLock, retry) => format!("async-redis-lock, retry {retry} ms"),
            (Kind::TokioRead, _) => "tokio::sync::RwLock, in process".to_owned(),
            (Kind::RawRead, _) => "raw scripts of .NET's reader".to_owned(),
            (Kind::Read, _) => "DistributedRwLock, read".to_owned(),
            (Kind::Write, _) => "DistributedRwLock, write".to_owned(),
            (Kind::Permit, _) => "DistributedSemaphore".to_owned(),
            (
                Kind::DistributedLock
                | Kind::DistributedLockRead
                | Kind::DistributedLockWrite
                | Kind::DistributedLockPermit,
                retry,
            ) => format!("distributed-lock, polled {retry} ms"),
        }
    }

    pub(crate) fn over(self, connections: usize) -> Self {
        Self {
            connections,
            ..self
        }
    }
}

/// Some use of locks of any kind, each in a task of its own.
pub(crate) trait Usage {
    type Outcome;
    fn run<L: Lock>(self, locks: Vec<L>) -> impl Future<Output = Self::Outcome>;
}

/// The clients of this process, each connected when it is first used.
pub(crate) struct Clients {
    pub(crate) url: String,
    raw: OnceCell<Raw>,
    ours: OnceCell<Arc<dyn LockProvider>>,
    rslock: OnceCell<Vec<LockManager>>,
    async_redis_lock: OnceCell<Locker>,
    distributed_lock: OnceCell<RedisLockProvider>,
}

impl Clients {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            raw: OnceCell::new(),
            ours: OnceCell::new(),
            rslock: OnceCell::new(),
            async_redis_lock: OnceCell::new(),
            distributed_lock: OnceCell::new(),
        }
    }

    /// Hands the locks of these numbers to a usage.
    pub(crate) async fn with_locks<U: Usage>(
        &self,
        way: Way,
        numbers: impl Iterator<Item = u64>,
        usage: U,
    ) -> U::Outcome {
        let retry = way.retry;
        match way.kind {
            Kind::Raw | Kind::RawScripts => {
                let (raw, counts) = (self.raw().await, way.kind == Kind::RawScripts);
                let locks = numbers.map(|number| raw.lock(number, counts)).collect();
                usage.run(locks).await
            }
            Kind::Attribute | Kind::AttributeInBackground => {
                let provider = self.ours().await;
                let in_background = way.kind == Kind::AttributeInBackground;
                let locks = numbers.map(|number| Annotated {
                    provider: provider.clone(),
                    number,
                    in_background,
                });
                usage.run(locks.collect()).await
            }
            Kind::Prepared => {
                let provider = self.ours().await;
                let named =
                    |number| DistributedLock::on(provider.clone(), format!("bench:{number}"));
                usage.run(numbers.map(named).collect()).await
            }
            Kind::Several => {
                let provider = self.ours().await;
                let named = |number| {
                    let names = ["a", "b", "c"].map(|part| format!("bench:{number}:{part}"));
                    Several(DistributedMultiLock::on(provider.clone(), names))
                };
                usage.run(numbers.map(named).collect()).await
            }
            Kind::PreparedInBackground => {
                let provider = self.ours().await;
                let named = |number| {
                    let lock = DistributedLock::on(provider.clone(), format!("bench:{number}"));
                    lock.release_in_background()
                };
                usage.run(numbers.map(named).collect()).await
            }
            Kind::Rslock => {
                let managers = self.rslock(way.connections).await;
                let locks = numbers.zip(managers.iter().cycle());
                let locks = locks.map(|(number, manager)| {
                    let mut manager = manager.clone();
                    // Only between attempts of one call is there a pause, so there is only one
                    // call.
                    manager.set_retry(u32::MAX, retry);
                    let name = format!("rslock:{number}");
                    Rslock { manager, name }
                });
                usage.run(locks.collect()).await
            }
            Kind::AsyncRedisLock => {
                let locker = self.async_redis_lock().await;
                let options = Options::new().retry(retry).timeout(None);
                let options = options.ttl(LEASE).extend(LEASE / 3);
                let locks = numbers.map(|number| AsyncRedisLock {
                    locker: locker.clone(),
                    options: options.clone(),
                    name: format!("async-redis-lock:{number}"),
                });
                usage.run(locks.collect()).await
            }
            Kind::DistributedLock => {
                let provider = self.distributed_lock(LEASE).await;
                let locks = numbers.map(|number| Polled {
                    lock: provider.create_lock(&format!("bench:{number}")),
                    retry,
                });
                usage.run(locks.collect()).await
            }
            Kind::TokioRead => {
                let lock = Arc::new(tokio::sync::RwLock::new(()));
                usage
                    .run(numbers.map(|_| TokioRead(Arc::clone(&lock))).collect())
                    .await
            }
            Kind::RawRead => {
                let raw = self.raw().await;
                usage
                    .run(numbers.map(|number| raw.read(number)).collect())
                    .await
            }
            Kind::Read | Kind::Write => {
                let provider = self.ours().await;
                let named =
                    |number| DistributedRwLock::on(provider.clone(), format!("bench:{number}"));
                match way.kind {
                    Kind::Read => {
                        usage
                            .run(numbers.map(|number| Read(named(number))).collect())
                            .await
                    }
                    _ => {
                        usage
                            .run(numbers.map(|number| Write(named(number))).collect())
                            .await
                    }
                }
            }
            Kind::Permit => {
                let provider = self.ours().await;
                let named = |number| {
                    let name = format!("bench:{number}");
                    Permit(DistributedSemaphore::on(provider.clone(), name, PERMITS))
                };
                usage.run(numbers.map(named).collect()).await
            }
            Kind::DistributedLockRead => {
                let provider = self.distributed_lock(LEASE).await;
                let named = |number| PolledRead {
                    lock: provider.create_reader_writer_lock(&format!("bench:{number}")),
                    retry,
                };
                usage.run(numbers.map(named).collect()).await
            }
            Kind::DistributedLockWrite => {
                let provider = self.distributed_lock(LEASE).await;
                let named = |number| PolledWrite {
                    lock: provider.create_reader_writer_lock(&format!("bench:{number}")),
                    retry,
                };
                usage.run(numbers.map(named).collect()).await
            }
            Kind::DistributedLockPermit => {
                let provider = self.distributed_lock(LEASE).await;
                let named = |number| PolledPermit {
                    semaphore: provider.create_semaphore(&format!("bench:{number}"), PERMITS),
                    retry,
                };
                usage.run(numbers.map(named).collect()).await
            }
        }
    }

    pub(crate) async fn raw(&self) -> &Raw {
        self.raw.get_or_init(|| Raw::connect(&self.url)).await
    }

    pub(crate) async fn ours(&self) -> &Arc<dyn LockProvider> {
        let connect = || async {
            let provider = RedisProvider::connect(&self.url).await;
            Arc::new(provider.expect("the server answers")) as _
        };
        self.ours.get_or_init(connect).await
    }

    /// Returns so many managers. Each connects when it is first used.
    async fn rslock(&self, connections: usize) -> &[LockManager] {
        let manager = || LockManager::new(vec![self.url.as_str()]);
        let managers = || async { (0..MOST_CONNECTIONS).map(|_| manager()).collect() };
        &self.rslock.get_or_init(managers).await[..connections]
    }

    pub(crate) async fn async_redis_lock(&self) -> &Locker {
        let connect = || async {
            let locker = Locker::from_redis_url(&self.url).await;
            locker.expect("the server answers")
        };
        self.async_redis_lock.get_or_init(connect).await
    }

    /// Returns the client, whose lease the first call decides on.
    pub(crate) async fn distributed_lock(&self, lease: Duration) -> &RedisLockProvider {
        let connect = || async {
            let provider = RedisLockProvider::builder()
                .url(&self.url)
                .expiry(lease)
                .extension_cadence(lease / 3)
                .min_validity(lease / 2);
            provider.build().await.expect("the server answers")
        };
        self.distributed_lock.get_or_init(connect).await
    }
}

struct Annotated {
    provider: Arc<dyn LockProvider>,
    number: u64,
    in_background: bool,
}

impl Lock for Annotated {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        #[distributed_lock(name = "bench:{number}", timeout = "1m", provider = provider)]
        async fn locked(
            provider: Arc<dyn LockProvider>,
            number: u64,
            section: impl Future<Output = ()> + Send,
        ) -> Result<(), LockError> {
            section.await;
            Ok(())
        }
        #[distributed_lock(
            name = "bench:{number}",
            timeout = "1m",
            provider = provider,
            release = "background"
        )]
        async fn locked_in_background(
            provider: Arc<dyn LockProvider>,
            number: u64,
            section: impl Future<Output = ()> + Send,
        ) -> Result<(), LockError> {
            section.await;
            Ok(())
        }
        let provider = self.provider.clone();
        let outcome = match self.in_background {
            true => locked_in_background(provider, self.number, section).await,
            false => locked(provider, self.number, section).await,
        };
        outcome.expect("it comes free");
    }
}

struct Rslock {
    manager: LockManager,
    name: String,
}

impl Lock for Rslock {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let guard = self.manager.acquire(self.name.as_str(), LEASE).await;
        section.await;
        guard.expect("it comes free").release().await;
    }
}

struct AsyncRedisLock {
    locker: Locker,
    options: Options,
    name: String,
}

impl Lock for AsyncRedisLock {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let acquiring = self
            .locker
            .acquire_with_options(&self.options, self.name.as_str());
        let lock = acquiring.await.expect("it comes free");
        section.await;
        lock.release().await.expect("it was held");
    }
}

struct Polled {
    lock: RedisDistributedLock,
    retry: Duration,
}

impl Lock for Polled {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let handle = loop {
            match self.lock.try_acquire().await.expect("the server answers") {
                Some(handle) => break handle,
                None => tokio::time::sleep(self.retry).await,
            }
        };
        section.await;
        handle.release().await.expect("it was held");
    }
}
