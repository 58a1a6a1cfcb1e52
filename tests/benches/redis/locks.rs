//! The contenders: this library, the raw commands, and other crates.

use std::future::Future;
use std::time::Duration;

use async_redis_lock::{Locker, Options};
use distributed_lock_core::traits::{DistributedLock as _, LockHandle as _, LockProvider as _};
use distributed_lock_redis::{RedisDistributedLock, RedisLockProvider};
use lock_runtime::{DistributedLock, LockError, RedisProvider, distributed_lock};
use rslock::LockManager;
use tokio::sync::OnceCell;

use crate::lock::{LEASE, Lock};
use crate::raw::Raw;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `SET NX PX`, and a script that compares and deletes.
    Raw,
    /// A script that does `SET NX PX` and `INCR`, and one that compares and deletes.
    RawScripts,
    Attribute,
    Prepared,
    Rslock,
    AsyncRedisLock,
    /// The crate `distributed-lock`. It does not wait, whatever the timeout, so the bench tries
    /// again.
    DistributedLock,
}

/// A contender, and how long it pauses between two attempts if it polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) kind: Kind,
    pub(crate) retry: Duration,
}

impl Kind {
    const NAMES: [(Self, &'static str); 7] = [
        (Self::Raw, "raw-commands"),
        (Self::RawScripts, "raw-scripts"),
        (Self::Attribute, "attribute"),
        (Self::Prepared, "prepared"),
        (Self::Rslock, "rslock"),
        (Self::AsyncRedisLock, "async-redis-lock"),
        (Self::DistributedLock, "distributed-lock"),
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
            _ => &["eval", "evalsha"],
        }
    }

    /// Polls without a pause, or with the crate's own pause where it has one.
    pub(crate) fn usual(self) -> Way {
        let retry = match self {
            Self::Rslock => Duration::from_millis(200),
            Self::AsyncRedisLock | Self::DistributedLock => Duration::from_millis(100),
            _ => Duration::ZERO,
        };
        self.every(retry)
    }

    pub(crate) fn every(self, retry: Duration) -> Way {
        Way { kind: self, retry }
    }
}

impl Way {
    pub(crate) fn what(self) -> String {
        match (self.kind, self.retry.as_millis()) {
            (Kind::Raw, _) => "raw SET NX PX, compare and delete".to_owned(),
            (Kind::RawScripts, _) => "raw SET NX PX + INCR, and delete".to_owned(),
            (Kind::Attribute, _) => "attribute, placeholder in name".to_owned(),
            (Kind::Prepared, _) => "DistributedLock, prepared".to_owned(),
            // Its pauses are random, up to this.
            (Kind::Rslock, retry) => format!("rslock, retry 0–{retry} ms"),
            (Kind::AsyncRedisLock, retry) => format!("async-redis-lock, retry {retry} ms"),
            (Kind::DistributedLock, retry) => format!("distributed-lock, polled {retry} ms"),
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
    ours: OnceCell<()>,
    rslock: OnceCell<LockManager>,
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
            Kind::Attribute => {
                self.connect_ours().await;
                usage.run(numbers.map(Annotated).collect()).await
            }
            Kind::Prepared => {
                self.connect_ours().await;
                let named = |number| DistributedLock::new(format!("bench:{number}"));
                usage.run(numbers.map(named).collect()).await
            }
            Kind::Rslock => {
                let mut manager = self.rslock().await.clone();
                // Only between attempts of one call is there a pause, so there is only one call.
                manager.set_retry(u32::MAX, retry);
                let locks = numbers.map(|number| Rslock {
                    manager: manager.clone(),
                    name: format!("rslock:{number}"),
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
        }
    }

    pub(crate) async fn raw(&self) -> &Raw {
        self.raw.get_or_init(|| Raw::connect(&self.url)).await
    }

    pub(crate) async fn connect_ours(&self) {
        let connect = || async {
            let provider = RedisProvider::connect(&self.url).await;
            lock_runtime::register(provider.expect("the server answers")).expect("the first");
        };
        self.ours.get_or_init(connect).await;
    }

    async fn rslock(&self) -> &LockManager {
        let connect = || async { LockManager::new(vec![self.url.as_str()]) };
        self.rslock.get_or_init(connect).await
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

struct Annotated(u64);

impl Lock for Annotated {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        #[distributed_lock(name = "bench:{number}", timeout = "1m")]
        async fn locked(
            number: u64,
            section: impl Future<Output = ()> + Send,
        ) -> Result<(), LockError> {
            section.await;
            Ok(())
        }
        locked(self.0, section).await.expect("it comes free");
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
