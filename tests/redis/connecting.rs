//! The servers that the provider takes, the words of a URL, and the errors that name a mistake.

use std::time::Duration;

use lock_runtime::{DistributedLock, LockConfig, LockErrorKind, LockProvider, RedisProvider};
use lock_tests::redis::RedisOptions;
use lock_tests::{ClosedPort, unique};

use crate::common::{DEADLINE, Server, take, with_server};

async fn refused(url: &str) -> (LockErrorKind, String) {
    let error = RedisProvider::connect(url)
        .await
        .expect_err("it cannot be used");
    assert!(
        !format!("{error} {error:?}").contains("secret"),
        "{error:?}"
    );
    (error.kind(), error.to_string())
}

#[test]
fn urls_say_what_builders_say() {
    with_server(|server| async move {
        let url = format!(
            "{}/3?key_prefix=MyApp1:&lease=1m30s&connect_timeout=2s&response_timeout=250ms",
            server.process.url()
        );
        let provider = std::sync::Arc::new(RedisProvider::connect(&url).await.unwrap());
        assert_eq!(provider.capabilities().lease, Some(Duration::from_secs(90)));
        let _guard = take(&provider, "order").await;
        server.raw.ask::<String>("SELECT 3").await;
        assert!(server.raw.get("MyApp1:order").await.is_some());
        let by_scheme = lock_runtime::connect(&url).await.unwrap();
        assert_eq!(by_scheme.capabilities().provider, "redis");
    });
}

#[test]
fn a_configuration_says_what_urls_say() {
    with_server(|server| async move {
        let second = Duration::from_secs(1);
        let locks = LockConfig::new(format!("{}/3?token_floor=7", server.process.url()))
            .key_prefix("MyApp2:")
            .lease(90 * second)
            .connect_timeout(2 * second)
            .response_timeout(second / 4);
        let provider = locks.connect().await.unwrap();
        let capabilities = provider.capabilities();
        assert_eq!(capabilities.lease, Some(90 * second));
        assert_eq!(capabilities.response_timeout, Some(second / 4));
        let guard = DistributedLock::on(provider, "order")
            .acquire()
            .await
            .unwrap();
        assert!(guard.fencing_token().unwrap().get() > 7);
        server.raw.ask::<String>("SELECT 3").await;
        assert!(server.raw.get("MyApp2:order").await.is_some());
    });
}

#[test]
fn a_client_can_be_given() {
    with_server(|server| async move {
        let client = redis::Client::open(server.process.url()).unwrap();
        let provider = RedisProvider::builder_from_client(client.clone())
            .key_prefix("A:")
            .connect()
            .await;
        let provider = std::sync::Arc::new(provider.unwrap());
        let _guard = take(&provider, "order").await;
        assert!(server.raw.get("A:order").await.is_some());
        RedisProvider::from_client(client).await.unwrap();
    });
}

#[test]
fn wrong_settings_are_named() {
    lock_tests::run(DEADLINE, async {
        for (url, expected) in [
            ("redis://user:secret@host:notaport", "expected a URL like"),
            ("redis://user:secret@", "expected a URL like"),
            ("user:secret@host", "expected a URL like"),
            ("redis://:secret@host/notadatabase", "expected a URL like"),
            (
                "redis://:secret@localhost?leese=5s",
                "unknown URL parameter `leese`",
            ),
            ("redis://:a?secret@localhost", "written as `%3F`"),
            ("redis://:a?lease=secret@localhost", "written as `%3F`"),
            ("redis://:a?secret=b&lease=5s@localhost", "written as `%3F`"),
            ("redis://:a#secret@localhost", "written as `%23`"),
            ("redis://:12#secret@localhost", "written as `%23`"),
            ("redis://localhost?lease=5s&lease=6s", "is given twice"),
            ("redis://localhost?key_prefix=a%00b", "without NUL"),
            ("redis://nobody@localhost", "a password for the user name"),
            ("redis://:a/secret@localhost", "expected a URL like"),
            ("redis://:secret@localhost?lease=5", "expected a duration"),
            ("redis://:secret@localhost?lease=99ms", "100 ms to 24 h"),
            ("redis://:secret@localhost?lease=2d", "100 ms to 24 h"),
            (
                "redis://:secret@localhost?response_timeout=0s",
                "above zero",
            ),
        ] {
            let (kind, text) = refused(url).await;
            assert_eq!(kind, LockErrorKind::InvalidConfig, "{text}");
            assert!(text.contains(expected), "{text}");
        }
    });
}

/// Starts a server of an age or kind that is not at hand, which answers this to each command of its
/// one client. Returns where it listens.
async fn answering(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4_096];
        while let Ok(length @ 1..) = client.read(&mut buffer).await {
            let asked = String::from_utf8_lossy(&buffer[..length]);
            let answers: String = asked.split('*').skip(1).map(&answer).collect();
            if client.write_all(answers.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    format!("127.0.0.1:{port}")
}

#[test]
fn what_is_no_redis_is_said() {
    lock_tests::run(DEADLINE, async {
        for answer in ["+OK\r\n", "*0\r\n", "$-1\r\n"] {
            let url = format!("redis://{}", answering(move |_| answer.to_owned()).await);
            let (kind, text) = refused(&url).await;
            assert_eq!(kind, LockErrorKind::Unsupported, "{answer:?}: {text}");
        }
    });
}

/// A proxy has words of its own for a command that it does not take.
#[test]
fn no_words_of_a_server_show_the_password() {
    lock_tests::run(DEADLINE, async {
        let repeated = "-ERR bad request 'HELLO 3 AUTH u secret'\r\n";
        let address = answering(|_| repeated.to_owned()).await;
        let (_, text) = refused(&format!("redis://u:secret@{address}")).await;
        assert!(text.contains("answered with an error"), "{text}");
    });
}

#[test]
fn a_database_that_there_is_not_is_said() {
    with_server(|server| async move {
        let (kind, text) = refused(&format!("{}/99", server.process.url())).await;
        assert_eq!(kind, LockErrorKind::InvalidConfig, "{text}");
        assert!(text.contains("database"), "{text}");
    });
}

#[test]
fn an_unreachable_server_is_said() {
    lock_tests::run(DEADLINE, async {
        // Nobody listens, and nobody else can: other tests start servers meanwhile.
        let black_hole = ClosedPort::new();
        let (kind, text) = refused(&format!("redis://:secret@{}", black_hole.address())).await;
        assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{text}");
        assert!(
            text.contains("server `127.0.0.1:") && text.contains("refused"),
            "{text}"
        );
        assert!(!text.contains("rediss:"), "nothing there wants TLS: {text}");
        // Accepts and never says a word.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let url = format!("redis://:secret@127.0.0.1:{port}?connect_timeout=200ms");
        let (kind, text) = refused(&url).await;
        assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{text}");
        assert!(text.contains("200ms"), "{text}");
    });
}

/// Starts a server that answers `HELLO` with this, and agrees to everything else.
async fn pretending(hello: &'static [&'static str]) -> String {
    let mut map = format!("%{}\r\n", hello.len() / 2);
    for text in hello {
        map += &format!("${}\r\n{text}\r\n", text.len());
    }
    let address = answering(move |command| match command.contains("HELLO") {
        true => map.clone(),
        false => "+OK\r\n".to_owned(),
    });
    format!("redis://{}", address.await)
}

#[test]
fn what_is_too_old_or_of_another_kind_is_refused() {
    lock_tests::run(DEADLINE, async {
        let old = pretending(&["version", "6.0.16", "mode", "standalone", "role", "master"]).await;
        let (kind, text) = refused(&old).await;
        assert_eq!(kind, LockErrorKind::Unsupported, "{text}");
        assert!(text.contains("6.2") && text.contains("6.0.16"), "{text}");
        let sentinel = pretending(&["version", "7.2.0", "mode", "sentinel", "role", "x"]).await;
        let (kind, text) = refused(&sentinel).await;
        assert_eq!(kind, LockErrorKind::Unsupported, "{text}");
        assert!(text.contains("sentinel"), "{text}");
    });
}

/// A server repeats in its answer what it does not know, and the password with it.
#[test]
fn a_server_without_hello_is_too_old_and_tells_no_password() {
    lock_tests::run(DEADLINE, async {
        let options = RedisOptions::default().config(r#"rename-command HELLO """#);
        let Some(server) = options.start() else {
            return;
        };
        let url = format!("redis://:secret@127.0.0.1:{}", server.port());
        let (kind, text) = refused(&url).await;
        assert_eq!(kind, LockErrorKind::Unsupported, "{text}");
        assert!(text.contains("HELLO") && text.contains("6.2"), "{text}");
    });
}

#[test]
fn a_cluster_is_refused_and_would_keep_a_lock_in_one_slot() {
    lock_tests::run(DEADLINE, async {
        let Some(server) = RedisOptions::default()
            .config("cluster-enabled yes")
            .start()
        else {
            return;
        };
        let (kind, text) = refused(&server.url()).await;
        assert_eq!(kind, LockErrorKind::Unsupported, "{text}");
        let server = Server::of(server).await;
        for (key, waiters) in [
            ("App:order", "{App:order}:lk1:waiters"),
            ("{App}:order", "{App}:order:lk1:waiters"),
            ("a{b}c{d}", "a{b}c{d}:lk1:waiters"),
        ] {
            let slot = |key: &str| format!("CLUSTER KEYSLOT {key}");
            let of_lock: u16 = server.raw.ask(&slot(key)).await;
            assert_eq!(
                of_lock,
                server.raw.ask::<u16>(&slot(waiters)).await,
                "{key}"
            );
        }
    });
}

#[test]
fn connections_outlive_the_runtime_that_made_them() {
    with_server(|server| async move {
        let url = format!("{}?key_prefix={}:", server.process.url(), unique());
        let provider = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(RedisProvider::connect(url)).unwrap()
        });
        let provider = std::sync::Arc::new(provider.join().unwrap());
        let before = server.raw.info("total_connections_received").await;
        take(&provider, "order").await.release().await.unwrap();
        assert_eq!(server.raw.info("total_connections_received").await, before);
    });
}
