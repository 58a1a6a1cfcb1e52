//! URLs of sentinels, and the errors that name a mistake.

use std::sync::Arc;

use lock_runtime::{LockErrorKind, LockProvider, RedisProvider};

use super::stub::{Says, Stub};
use crate::common::{DEADLINE, take, with_server};

async fn refused(url: &str) -> (LockErrorKind, String) {
    let error = RedisProvider::connect(url).await.expect_err(url);
    let by_scheme = lock_runtime::connect(url).await.map(drop).expect_err(url);
    let shown = format!("{error} {error:?} {by_scheme} {by_scheme:?}");
    assert!(!shown.contains("secret"), "{shown}");
    (error.kind(), error.to_string())
}

#[test]
fn all_forms_lead_to_the_primary() {
    with_server(|server| async move {
        let stub = Stub::start(Says::primary(server.process.port(), 0)).await;
        let host = format!("127.0.0.1:{}", stub.port);
        let parameters = "key_prefix=A:&failover_timeout=40s";
        for url in [
            format!("redis-sentinel://{host}?service=orders&{parameters}"),
            format!("redis-sentinel://{host}/2?sentinelMasterId=orders&{parameters}"),
            format!("Valkey-Sentinel://{host}/2?sentinelServiceName=orders&{parameters}"),
            format!("redis+sentinel://{host}/orders?{parameters}"),
            format!("VALKEY+SENTINEL://{host}/orders/2?{parameters}"),
            format!("redis+sentinel://{host},127.0.0.1:1,[::1]:1/orders/2?{parameters}"),
        ] {
            let provider = Arc::new(RedisProvider::connect(&url).await.expect(&url));
            let database = if url.contains("/2") { 2 } else { 0 };
            let guard = take(&provider, "order").await;
            server
                .raw
                .ask::<String>(&format!("SELECT {database}"))
                .await;
            assert!(server.raw.get("A:order").await.is_some(), "{url}");
            let by_scheme = lock_runtime::connect(&url).await.expect(&url);
            assert_eq!(by_scheme.capabilities().provider, "redis");
            guard.release().await.unwrap();
        }
    });
}

#[test]
fn mistakes_are_named() {
    lock_tests::run(DEADLINE, async {
        for (url, expected) in [
            ("redis-sentinel://:secret@a", "the name of the service"),
            (
                "redis-sentinel://:secret@a?service=",
                "the name of the service",
            ),
            (
                "redis+sentinel://:secret@a",
                "the name of the service is missing",
            ),
            (
                "redis+sentinel://:secret@a/b?service=c",
                "names the service twice",
            ),
            (
                "redis-sentinel://a?service=b&sentinelMasterId=b",
                "names the service twice",
            ),
            (
                "redis-sentinel://:secret@a,a:26379?service=b",
                "named twice",
            ),
            ("redis-sentinel://:secret@a,?service=b", "a host or port"),
            ("redis-sentinel://:secret@::1?service=b", "in brackets"),
            ("redis-sentinel://:secret@a/b?service=b", "the database"),
            ("redis-sentinel://:a/secret@b?service=c", "written as"),
            ("redis-sentinel://u:1/secret@b?service=c", "written as"),
            (
                "redis-sentinel://u@a?service=b",
                "a password for the user name",
            ),
            (
                "redis-sentinel://a?service=b&sentinel_username=u",
                "a `sentinel_password`",
            ),
            (
                "redis-sentinel://a?service=b&sentinel_tls=secret",
                "expected `true` or `false` for `sentinel_tls`",
            ),
            (
                "redis-sentinel://a?service=b&sentinel_pasword=secret",
                "did you mean `sentinel_password`",
            ),
            (
                "redis://:secret@a?sentinel_password=secret",
                "unknown URL parameter `sentinel_password`",
            ),
            (
                "redis://:secret@a?service=b",
                "unknown URL parameter `service`",
            ),
        ] {
            let (kind, text) = refused(url).await;
            assert_eq!(kind, LockErrorKind::InvalidConfig, "{url}: {text}");
            assert!(text.contains(expected), "{url}: {text}");
        }
        let (kind, text) = refused("redis://:secret@a:1,b").await;
        assert_eq!(kind, LockErrorKind::Unsupported, "{text}");
        assert!(text.contains("redis-sentinel://"), "{text}");
    });
}

#[test]
fn mistakes_of_a_builder_are_named() {
    lock_tests::run(DEADLINE, async {
        let none: [&str; 0] = [];
        let sentinel = |hosts: &[&str]| RedisProvider::sentinel("orders", hosts.to_vec());
        for (builder, expected) in [
            (
                RedisProvider::sentinel("", ["a"]),
                "the name of the service",
            ),
            (RedisProvider::sentinel("b", none), "at least one sentinel"),
            (sentinel(&["a", "A:26379"]), "`a:26379` is named twice"),
            (sentinel(&["a", "rediss://b"]), "TLS with all sentinels"),
            (
                sentinel(&["redis://:secret@a/0"]),
                "expected a sentinel like",
            ),
            (
                sentinel(&["redis://:secret@a?lease=1s"]),
                "expected a sentinel like",
            ),
            (
                sentinel(&["a"]).sentinel_username("u"),
                "a `sentinel_password`",
            ),
            (
                sentinel(&["a"]).sentinel_root_certificates("secret"),
                "needs `sentinel_tls`",
            ),
            (
                RedisProvider::builder("redis://a").sentinel_password("secret"),
                "settings of sentinels need",
            ),
            (
                RedisProvider::builder("redis://a").server_name("b"),
                "`server_name` needs TLS",
            ),
            (sentinel(&["a"]).server_name("b"), "`server_name` needs TLS"),
            (
                sentinel(&["rediss://a"]).server_name("not a name"),
                "a host name or an address for `server_name`",
            ),
        ] {
            let shown = format!("{builder:?}");
            let error = builder.connect().await.expect_err(expected);
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            let shown = format!("{shown} {error} {error:?}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    });
}
