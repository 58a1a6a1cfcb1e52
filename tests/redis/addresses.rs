//! The ways to name a server: schemes and Unix sockets, and what is told of those that are not
//! supported.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockProvider, RedisProvider};
use lock_tests::redis::RedisOptions;
use lock_tests::{Scratch, certificates};

use crate::common::{DEADLINE, Server, lock, take, with_server};

#[test]
fn valkey_is_a_scheme() {
    with_server(|server| async move {
        let address = format!("127.0.0.1:{}", server.process.port());
        for (scheme, name) in [("valkey", "one"), ("Valkey", "two"), ("REDIS", "three")] {
            let url = format!("{scheme}://{address}/2?key_prefix=A:");
            let provider = Arc::new(RedisProvider::connect(&url).await.unwrap());
            let _guard = take(&provider, name).await;
            server.raw.ask::<String>("SELECT 2").await;
            assert!(server.raw.get(&format!("A:{name}")).await.is_some());
            let by_scheme = lock_runtime::connect(&url).await.unwrap();
            assert_eq!(by_scheme.capabilities().provider, "redis");
        }
    });
}

#[test]
fn a_unix_socket_is_connected_to() {
    lock_tests::run(DEADLINE, async {
        let scratch = Scratch::new();
        let path = scratch.join("redis.sock");
        let server = RedisOptions::default()
            .config(&format!("unixsocket {}", path.display()))
            .acl("user default on nopass ~* &* +@all")
            .acl("user app on >p@ss=word ~* &* +@all")
            .start();
        let Some(server) = server else {
            return;
        };
        let server = Server::of(server).await;
        server.raw.ask::<String>("SELECT 3").await;
        let path = path.display();
        for (number, url) in [
            format!("unix://{path}?db=3&lease=5s"),
            format!("unix:{path}?db=3&lease=5s"),
            format!("redis+unix://{path}?lease=5s&db=3&user=app&pass=p%40ss%3Dword"),
            format!("valkey+unix://{path}?lease=5s&db=3"),
        ]
        .into_iter()
        .enumerate()
        {
            let provider = Arc::new(RedisProvider::connect(&url).await.unwrap());
            assert_eq!(provider.capabilities().lease, Some(Duration::from_secs(5)));
            assert!(provider.describe().contains("redis.sock"));
            let name = format!("order:{number}");
            let guard = take(&provider, &name).await;
            assert!(server.raw.get(&name).await.is_some(), "{url}");
            let other = lock_runtime::connect(&url).await.unwrap();
            let other = lock_runtime::DistributedLock::on(other, name);
            assert!(other.try_acquire().await.unwrap().is_none());
            guard.release().await.unwrap();
        }
        // What the builder says wins.
        let provider = RedisProvider::builder(format!("unix://{path}?user=nobody&pass=wrong"))
            .username("app")
            .password("p@ss=word")
            .connect()
            .await;
        let guard = take(&Arc::new(provider.unwrap()), "order").await;
        guard.release().await.unwrap();
        let client = redis::Client::open(format!("unix://{path}")).unwrap();
        let provider = Arc::new(RedisProvider::from_client(client).await.unwrap());
        // A connection that breaks is made anew there.
        server.raw.ask::<u64>("CLIENT KILL TYPE pubsub").await;
        let order = lock(&provider, "order");
        order
            .try_acquire()
            .await
            .unwrap()
            .expect("free")
            .release()
            .await
            .unwrap();
    });
}

async fn refused(url: &str) -> (LockErrorKind, String) {
    let by_scheme = lock_runtime::connect(url).await;
    let by_scheme = by_scheme.map(drop).expect_err("it cannot be used");
    let error = RedisProvider::connect(url)
        .await
        .expect_err("it cannot be used");
    assert_eq!(by_scheme.to_string(), error.to_string());
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    (error.kind(), error.to_string())
}

#[test]
fn what_is_not_supported_is_said() {
    lock_tests::run(DEADLINE, async {
        let cluster = "Redis Cluster is not supported";
        let several = "several servers in one URL are not supported";
        for (url, expected) in [
            ("redis-cluster://a:1", cluster),
            ("redis+cluster://a:1,b:2", cluster),
            ("REDISS-CLUSTER://a:1", cluster),
            ("redis://a:1,b:2", several),
            ("rediss://user:secret@a:1,b:2,c:3/0?lease=5s", several),
            ("valkey://a,b", several),
        ] {
            let (kind, text) = refused(url).await;
            assert_eq!(kind, LockErrorKind::Unsupported, "{url}: {text}");
            assert!(text.contains(expected), "{url}: {text}");
        }
    });
}

#[test]
fn a_wrong_socket_is_said() {
    lock_tests::run(DEADLINE, async {
        for (url, expected) in [
            ("unix://", "unix:///run/redis.sock"),
            ("unix:redis.sock", "unix:///run/redis.sock"),
            ("unix://host/redis.sock", "unix:///run/redis.sock"),
            ("unix://user:secret@/redis.sock", "is written as `%40`"),
            ("unix:///user:secret@/redis.sock", "is written as `%40`"),
            ("unix:///redis.sock?db=secret", "a number for `db`"),
            ("unix:///redis.sock?user=nobody", "a password for the user"),
            (
                "unix:///redis.sock?pass=secret&leese=1s",
                "`db`, `user`, `pass`",
            ),
            ("redis://localhost?db=1", "unknown URL parameter `db`"),
        ] {
            let (kind, text) = refused(url).await;
            assert_eq!(kind, LockErrorKind::InvalidConfig, "{url}: {text}");
            assert!(text.contains(expected), "{url}: {text}");
        }
        let (kind, text) = refused("unix:///no/such/redis.sock").await;
        assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{text}");
        assert!(text.contains("/no/such/redis.sock"), "{text}");
    });
}

#[test]
fn tls_against_a_plain_port_is_said_soon() {
    lock_tests::run(DEADLINE, async {
        let protected = RedisOptions::default().config("requirepass secret");
        for options in [RedisOptions::default(), protected] {
            let Some(server) = options.start() else {
                return;
            };
            for scheme in ["rediss", "valkeys"] {
                let began = Instant::now();
                let url = format!("{scheme}://127.0.0.1:{}", server.port());
                let error = RedisProvider::connect(&url).await.unwrap_err();
                let took = began.elapsed();
                assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
                assert!(error.to_string().contains("no TLS on this port"), "{error}");
                assert!(took < Duration::from_secs(2), "{took:?}");
            }
        }
    });
}

#[test]
fn no_tls_against_a_port_for_tls_is_said_soon() {
    lock_tests::run(DEADLINE, async {
        let scratch = Scratch::new();
        let Some(tls) = certificates::make(scratch.path()) else {
            return lock_tests::skip::because("openssl could not make certificates");
        };
        let Some(server) = RedisOptions::default().tls(tls).start() else {
            return;
        };
        let began = Instant::now();
        let url = format!("redis://127.0.0.1:{}", server.tls_port().unwrap());
        let error = RedisProvider::connect(&url).await.unwrap_err();
        let took = began.elapsed();
        assert!(error.to_string().contains("rediss:"), "{error}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    });
}
