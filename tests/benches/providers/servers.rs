//! The servers that all contenders share.

use lock_tests::postgres::PostgresOptions;
use lock_tests::{PostgresServer, RedisServer, Scratch, ZooKeeperServer};

pub(crate) struct Servers {
    redis: RedisServer,
    postgres: PostgresServer,
    zookeeper: ZooKeeperServer,
    files: Scratch,
}

/// The URLs of the servers.
#[derive(Clone)]
pub(crate) struct Urls {
    pub(crate) redis: String,
    pub(crate) postgres: String,
    pub(crate) zookeeper: String,
    /// The directory of the file provider.
    pub(crate) files: String,
}

impl Servers {
    /// Starts the servers. `None` where one of them is not installed.
    pub(crate) fn start() -> Option<Self> {
        Some(Self {
            redis: RedisServer::start_plain()?,
            postgres: PostgresOptions::default().start()?,
            zookeeper: ZooKeeperServer::start()?,
            files: Scratch::new(),
        })
    }

    pub(crate) fn urls(&self) -> Urls {
        Urls {
            redis: self.redis.url(),
            postgres: self.postgres.url(),
            zookeeper: self.zookeeper.url(),
            files: self.files.path().display().to_string(),
        }
    }
}

impl Urls {
    pub(crate) fn parse(text: &str) -> Self {
        let mut words = text.split(' ').map(str::to_owned);
        let mut next = || words.next().expect("four of them");
        Self {
            redis: next(),
            postgres: next(),
            zookeeper: next(),
            files: next(),
        }
    }
}

impl std::fmt::Display for Urls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            redis,
            postgres,
            zookeeper,
            files,
        } = self;
        write!(f, "{redis} {postgres} {zookeeper} {files}")
    }
}
