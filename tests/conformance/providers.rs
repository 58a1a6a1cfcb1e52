//! The fixture of each provider, and of each kind of lock that can stand for a mutex.

#[cfg(feature = "file")]
use std::path::Path;
use std::sync::Arc;

use lock_runtime::testing::TestProvider;
use lock_runtime::{InProcessProvider, LockMode};
#[cfg(feature = "postgres")]
use lock_tests::PostgresServer;
#[cfg(feature = "redis")]
use lock_tests::RedisServer;
use lock_tests::any_lock::permits;
#[cfg(feature = "redis")]
use lock_tests::redis::sentinel::WatchedServers;
#[cfg(feature = "redis")]
use lock_tests::redis::{LEAST_PRIVILEGE, RedisOptions};
#[cfg(feature = "zookeeper")]
use lock_tests::zookeeper::SharedServer;
#[cfg(feature = "file")]
use lock_tests::{Scratch, unique};
#[cfg(feature = "zookeeper")]
use zookeeper_client::Client;

use crate::fixture::{BoxFixture, Fixture};
use crate::mutexes::Plain;

/// Makes the fixtures in which other kinds of locks stand for a provider's mutexes: a writer, the
/// only permit that there is, and the last of five.
macro_rules! kinds {
    ($provider:ident: $write:ident, $only:ident, $last:ident) => {
        pub(crate) fn $write() -> BoxFixture {
            of($provider, LockMode::Write)
        }

        pub(crate) fn $only() -> BoxFixture {
            of($provider, permits(1, 1))
        }

        pub(crate) fn $last() -> BoxFixture {
            of($provider, permits(1, 5))
        }
    };
}

fn of(provider: fn() -> BoxFixture, mode: LockMode) -> BoxFixture {
    Box::pin(async move { Some(provider().await?.of_mode(mode).await) })
}

kinds!(in_process: in_process_write, in_process_only_permit, in_process_last_permit);
kinds!(testing: testing_write, testing_only_permit, testing_last_permit);
#[cfg(feature = "file")]
kinds!(file: file_write, file_only_permit, file_last_permit);
#[cfg(feature = "postgres")]
kinds!(postgres: postgres_write, postgres_only_permit, postgres_last_permit);
#[cfg(feature = "redis")]
kinds!(redis: redis_write, redis_only_permit, redis_last_permit);
#[cfg(feature = "zookeeper")]
kinds!(zookeeper: zookeeper_write, zookeeper_only_permit, zookeeper_last_permit);

pub(crate) fn in_process() -> BoxFixture {
    Box::pin(async { Some(Fixture::new(Arc::new(InProcessProvider::new()))) })
}

pub(crate) fn testing() -> BoxFixture {
    Box::pin(async {
        let provider = TestProvider::new();
        let (first, server) = (provider.clone(), provider.clone());
        let fixture = Fixture::new(Arc::new(first))
            .with_another(move || Arc::new(provider.another_process()))
            .with_losses(move |name| {
                server.lose(name);
                Box::pin(async {})
            });
        Some(fixture)
    })
}

pub(crate) fn plain() -> BoxFixture {
    Box::pin(async {
        let provider = TestProvider::new();
        let first = Plain(provider.clone());
        let fixture = Fixture::new(Arc::new(first))
            .with_another(move || Arc::new(Plain(provider.another_process())));
        Some(fixture)
    })
}

#[cfg(feature = "file")]
pub(crate) fn file() -> BoxFixture {
    Box::pin(async {
        let scratch = Scratch::new();
        let directory = scratch.join("locks");
        let url = format!("file:{}?key_prefix={}:", directory.display(), unique());
        let fixture = Fixture::connect(url).await.with_losses(move |name| {
            remove_files(&directory, name);
            Box::pin(async {})
        });
        Some(fixture.with(scratch))
    })
}

/// Removes the files of a lock or a semaphore. In their names, what is no letter or digit is
/// replaced, and the name follows the prefix and its colon.
#[cfg(feature = "file")]
fn remove_files(directory: &Path, name: &str) {
    let plain = |text: &str| text.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
    for file in std::fs::read_dir(directory).expect("the directory") {
        let file = file.expect("a file");
        let path = file.path();
        let stem = path.file_stem().expect("a name").to_string_lossy();
        if plain(&stem).contains(&format!("_{}", plain(name))) {
            std::fs::remove_file(path).expect("it can be removed");
        }
    }
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
        let client = redis::Client::open(server.url()).expect("an address");
        let fixture = Fixture::connect(url).await.with_losses(move |name| {
            let (client, pattern) = (client.clone(), format!("*{name}*"));
            Box::pin(async move {
                let mut server = client.get_multiplexed_async_connection().await.unwrap();
                let (mut asking, mut deleting) = (redis::cmd("KEYS"), redis::cmd("DEL"));
                let asking = asking.arg(pattern).query_async(&mut server);
                let keys: Vec<String> = asking.await.unwrap();
                let deleted: usize = deleting.arg(keys).query_async(&mut server).await.unwrap();
                assert!(deleted > 0, "somebody has the lock");
            })
        });
        Some(fixture.with(server))
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

/// Uses one server and one sentinel for all tests, and names that no other test has.
#[cfg(feature = "redis")]
pub(crate) fn redis_sentinel() -> BoxFixture {
    Box::pin(async {
        let service = WatchedServers::shared()?;
        let url = format!("{}&key_prefix={}:&lease=3s", service.url(), unique());
        Some(Fixture::connect(url).await.with(service))
    })
}

/// Starts three servers for each test. They are young, and vote all the same.
#[cfg(feature = "redis")]
pub(crate) fn redis_quorum() -> BoxFixture {
    Box::pin(async {
        let start = |_| RedisServer::start_plain();
        let servers = (0..3).map(start).collect::<Option<Vec<_>>>()?;
        let hosts = servers.iter();
        let hosts: Vec<_> = hosts.map(|it| format!("127.0.0.1:{}", it.port())).collect();
        let (hosts, prefix) = (hosts.join(","), unique());
        let url = format!("redis-quorum://{hosts}?key_prefix={prefix}:&lease=3s&restart_delay=0s");
        Some(Fixture::connect(url).await.with(servers))
    })
}

/// Uses one server for all tests, since a Java machine takes long to start, and a directory for
/// each test.
#[cfg(feature = "zookeeper")]
pub(crate) fn zookeeper() -> BoxFixture {
    Box::pin(async {
        let server = SharedServer::find()?;
        let (cluster, directory) = (format!("127.0.0.1:{}", server.port()), unique());
        let url = format!("zookeeper://{cluster}/{directory}?key_prefix=MyApp1:&lease=4s");
        let fixture = Fixture::connect(url).await.with_losses(move |name| {
            let (cluster, node) = (cluster.clone(), format!("/{directory}/MyApp1:{name}"));
            Box::pin(async move {
                let server = Client::connect(&cluster).await.expect("it answers");
                let children = server.list_children(&node).await.expect("it is in use");
                assert!(!children.is_empty(), "somebody has the lock");
                for child in children {
                    let deleted = server.delete(&format!("{node}/{child}"), None).await;
                    deleted.expect("it can be deleted");
                }
            })
        });
        Some(fixture)
    })
}
