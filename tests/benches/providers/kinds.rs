//! The contenders, each connected when it is first used.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distributed_lock_postgres::PostgresLockProvider;
use lock_runtime::{LockMode, LockProvider};
use lock_tests::any_lock::permits;
use lock_tests::boot_nanos;
use sqlx::PgPool;
use sqlx::postgres::PgAdvisoryLock;
use tokio::sync::OnceCell;

use crate::lock::Lock;
use crate::locks::{RawFile, of_mode, ours};
use crate::peers::{self, Sqlx};
use crate::postgres::{Ask, RawPostgres};
use crate::redis::Raw as RawRedis;
use crate::servers::Urls;
use crate::zookeeper::RawZooKeeper;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    RawFile,
    File,
    RawRedis,
    Redis,
    RawPostgres,
    RawPostgresTokens,
    Postgres,
    RawPostgresShared,
    PostgresRead,
    PostgresPermit,
    Sqlx,
    DistributedLock,
    RawZooKeeper,
    ZooKeeper,
    ZooKeeperRead,
    ZooKeeperPermit,
}

impl Kind {
    const NAMES: [(Self, &'static str, &'static str); 16] = [
        (Self::RawFile, "raw-file", "raw open and lock"),
        (Self::File, "file", "FileProvider"),
        (
            Self::RawRedis,
            "raw-redis",
            "raw SET NX PX + INCR, and delete",
        ),
        (Self::Redis, "redis", "RedisProvider"),
        (
            Self::RawPostgres,
            "raw-postgres",
            "raw pg_try_advisory_lock",
        ),
        (
            Self::RawPostgresTokens,
            "raw-tokens",
            "raw the same, with a token",
        ),
        (Self::Postgres, "postgres", "PostgresProvider"),
        (
            Self::RawPostgresShared,
            "raw-shared",
            "raw pg_try_advisory_lock_shared, with a token",
        ),
        (
            Self::PostgresRead,
            "postgres-read",
            "PostgresProvider, a read",
        ),
        (
            Self::PostgresPermit,
            "postgres-permit",
            "PostgresProvider, the only permit",
        ),
        (Self::Sqlx, "sqlx", "sqlx PgAdvisoryLock"),
        (
            Self::DistributedLock,
            "distributed-lock",
            "distributed-lock-postgres",
        ),
        (
            Self::RawZooKeeper,
            "raw-zookeeper",
            "raw creations and removals",
        ),
        (Self::ZooKeeper, "zookeeper", "ZooKeeperProvider"),
        (
            Self::ZooKeeperRead,
            "zookeeper-read",
            "ZooKeeperProvider, to read",
        ),
        (
            Self::ZooKeeperPermit,
            "zookeeper-permit",
            "ZooKeeperProvider, a permit",
        ),
    ];

    pub(crate) fn name(self) -> &'static str {
        self.names().1
    }

    pub(crate) fn what(self) -> &'static str {
        self.names().2
    }

    fn names(self) -> (Self, &'static str, &'static str) {
        let mut all = Self::NAMES.into_iter();
        all.find(|(kind, ..)| *kind == self).expect("every kind")
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut all = Self::NAMES.into_iter();
        all.find(|(_, its, _)| *its == name).map(|(kind, ..)| kind)
    }
}

pub(crate) struct Clients {
    urls: Urls,
    ours: [OnceCell<Arc<dyn LockProvider>>; 4],
    redis: OnceCell<RawRedis>,
    postgres: OnceCell<RawPostgres>,
    zookeeper: OnceCell<RawZooKeeper>,
    sqlx: OnceCell<PgPool>,
    distributed_lock: OnceCell<PostgresLockProvider>,
}

/// Takes the lock again and again for at least this long, and answers sections a second.
struct Repeat(Duration);

/// Takes the lock once; the section is the caller's.
struct Once<S>(S);

trait Usage {
    type Outcome;
    fn run<L: Lock>(self, lock: L) -> impl Future<Output = Self::Outcome>;
}

impl Usage for Repeat {
    type Outcome = f64;

    async fn run<L: Lock>(self, mut lock: L) -> f64 {
        // In a task, as in a service.
        let repeating = tokio::spawn(async move {
            let (began, mut sections) = (Instant::now(), 0_u32);
            while began.elapsed() < self.0 {
                for _ in 0..10 {
                    lock.with(ready(())).await;
                }
                sections += 10;
            }
            f64::from(sections) / began.elapsed().as_secs_f64()
        });
        repeating.await.expect("it does not panic")
    }
}

impl<S: Future<Output = ()> + Send> Usage for Once<S> {
    /// The moments at which the lock was acquired and at which its release began.
    type Outcome = (u64, u64);

    async fn run<L: Lock>(self, mut lock: L) -> (u64, u64) {
        let (mut from, mut until) = (0, 0);
        lock.with(async {
            from = boot_nanos();
            self.0.await;
            until = boot_nanos();
        })
        .await;
        (from, until)
    }
}

impl Clients {
    pub(crate) fn new(urls: Urls) -> Self {
        Self {
            urls,
            ours: Default::default(),
            redis: OnceCell::new(),
            postgres: OnceCell::new(),
            zookeeper: OnceCell::new(),
            sqlx: OnceCell::new(),
            distributed_lock: OnceCell::new(),
        }
    }

    /// Measures the sections a second, one after another, of a lock that nobody else wants.
    pub(crate) async fn rate(&self, kind: Kind, number: u64, window: Duration) -> f64 {
        // Connects and prepares.
        self.with(kind, number, Once(ready(()))).await;
        self.with(kind, number, Repeat(window)).await
    }

    /// Acquires the lock, and returns the moment at which it was acquired.
    pub(crate) async fn held_at(&self, kind: Kind, number: u64) -> u64 {
        self.with(kind, number, Once(ready(()))).await.0
    }

    /// Holds the lock for the section, and returns the moment at which its release began.
    pub(crate) async fn hold(
        &self,
        kind: Kind,
        number: u64,
        section: impl Future<Output = ()> + Send,
    ) -> u64 {
        self.with(kind, number, Once(section)).await.1
    }

    async fn with<U: Usage>(&self, kind: Kind, number: u64, usage: U) -> U::Outcome {
        let urls = &self.urls;
        match kind {
            Kind::RawFile => {
                usage
                    .run(RawFile(format!("{}/raw-{number}", urls.files)))
                    .await
            }
            Kind::File => {
                self.with_ours(0, format!("file:{}", urls.files), number, usage)
                    .await
            }
            Kind::Redis => self.with_ours(1, urls.redis.clone(), number, usage).await,
            Kind::Postgres => {
                self.with_ours(2, urls.postgres.clone(), number, usage)
                    .await
            }
            Kind::ZooKeeper => {
                self.with_ours(3, urls.zookeeper.clone(), number, usage)
                    .await
            }
            Kind::ZooKeeperRead => self.with_zookeeper(LockMode::Read, number, usage).await,
            Kind::ZooKeeperPermit => self.with_zookeeper(permits(1, 5), number, usage).await,
            Kind::RawRedis => {
                let raw = self
                    .redis
                    .get_or_init(|| RawRedis::connect(&urls.redis))
                    .await;
                usage.run(raw.lock(number, true)).await
            }
            Kind::PostgresRead | Kind::PostgresPermit => {
                let mode = match kind {
                    Kind::PostgresRead => LockMode::Read,
                    _ => permits(1, 1),
                };
                let provider = self.ours(2, &urls.postgres).await;
                usage.run(of_mode(mode, provider, number)).await
            }
            Kind::RawPostgres | Kind::RawPostgresTokens | Kind::RawPostgresShared => {
                let connect = || RawPostgres::connect(&urls.postgres);
                let raw = self.postgres.get_or_init(connect).await;
                let ask = match kind {
                    Kind::RawPostgres => Ask::Lock,
                    Kind::RawPostgresTokens => Ask::LockWithToken,
                    _ => Ask::ShareWithToken,
                };
                usage.run(raw.lock(number, ask)).await
            }
            Kind::RawZooKeeper => {
                let connect = || RawZooKeeper::connect(&urls.zookeeper);
                let raw = self.zookeeper.get_or_init(connect).await;
                usage.run(raw.lock(number)).await
            }
            Kind::Sqlx => {
                let pool = self.sqlx.get_or_init(|| peers::pool(&urls.postgres)).await;
                let lock = Sqlx {
                    pool: pool.clone(),
                    lock: PgAdvisoryLock::new(format!("sqlx:{number}")),
                };
                usage.run(lock).await
            }
            Kind::DistributedLock => {
                let connect = || peers::distributed_lock(&urls.postgres);
                let provider = self.distributed_lock.get_or_init(connect).await;
                usage.run(peers::create(provider, number)).await
            }
        }
    }

    async fn with_zookeeper<U: Usage>(&self, mode: LockMode, number: u64, usage: U) -> U::Outcome {
        let url = &self.urls.zookeeper;
        let connect = || async { lock_runtime::connect(url).await.expect("it answers") };
        let provider = self.ours[3].get_or_init(connect).await;
        usage.run(of_mode(mode, provider, number)).await
    }

    async fn with_ours<U: Usage>(
        &self,
        place: usize,
        url: String,
        number: u64,
        usage: U,
    ) -> U::Outcome {
        usage.run(ours(self.ours(place, &url).await, number)).await
    }

    async fn ours(&self, place: usize, url: &str) -> &Arc<dyn LockProvider> {
        let connect = || async { lock_runtime::connect(url).await.expect("it answers") };
        self.ours[place].get_or_init(connect).await
    }
}
