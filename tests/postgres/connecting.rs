//! The servers that the provider takes, the words of a URL, and the errors that name a mistake.

use std::time::Duration;

use lock_runtime::{LockErrorKind, LockProvider, PostgresProvider};
use lock_tests::ClosedPort;
use lock_tests::pgbouncer::PgBouncer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::common::{BOUND, DEADLINE, take, with_server};

async fn refused(url: &str) -> (LockErrorKind, String) {
    let error = PostgresProvider::connect(url)
        .await
        .expect_err("it cannot be used");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("secret"), "{shown}");
    (error.kind(), error.to_string())
}

#[test]
fn urls_say_what_builders_say() {
    with_server(|server| async move {
        let url = format!(
            "{}?key_prefix=MyApp1:&lease=1m30s&connect_timeout=20s&response_timeout=2s",
            server.process.url()
        );
        let provider = lock_runtime::connect(&url).await.unwrap();
        assert_eq!(provider.capabilities().lease, Some(Duration::from_secs(90)));
        assert_eq!(provider.capabilities().provider, "postgres");
        let called = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' \
             AND application_name LIKE 'lk1 %:{}'",
            std::process::id()
        );
        assert_eq!(server.count(&called).await, 1);
        let named = format!("{}?application_name=billing", server.process.url());
        let named = lock_runtime::connect(&named).await.unwrap();
        let called = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'billing'";
        assert_eq!(server.count(called).await, 1);
        drop(named);
        let by_password = format!(
            "postgresql://service:secret@127.0.0.1:{}/postgres",
            server.process.port()
        );
        let provider = std::sync::Arc::new(PostgresProvider::connect(&by_password).await.unwrap());
        assert!(!format!("{provider:?}").contains("secret"));
        let builder = PostgresProvider::builder(&by_password).password("secret");
        assert!(!format!("{builder:?}").contains("secret"));
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn wrong_settings_are_named() {
    lock_tests::run(DEADLINE, async {
        for (url, expected) in [
            ("postgres://u:secret@host:notaport", "expected a URL like"),
            ("postgres://u:secret@h/d?leese=5s", "leese"),
            (
                "postgres://u:secret@h/d?leese=5s",
                "expected `key_prefix`, `lease`, `connect_timeout`",
            ),
            ("postgres://u:secret@h/d?lease=5", "expected a duration"),
            ("postgres://u:secret@h/d?lease=99ms", "100 ms to 24 h"),
            ("postgres://u:secret@h/d?response_timeout=0s", "above zero"),
            ("postgres://u:secret@h/d?sslmode=maybe", "verify-full"),
            ("postgres://u:secret@h/d?waiting_sessions=x", "a number"),
        ] {
            let (kind, text) = refused(url).await;
            assert_eq!(kind, LockErrorKind::InvalidConfig, "{text}");
            assert!(text.contains(expected), "{text}");
        }
        let black_hole = ClosedPort::new();
        let url = format!("postgres://u:secret@{}/d", black_hole.address());
        let (kind, text) = refused(&url).await;
        assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{text}");
        assert!(text.contains("refused"), "{text}");
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let url = format!("postgres://u:secret@127.0.0.1:{port}/d?connect_timeout=200ms");
        let (kind, text) = refused(&url).await;
        assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{text}");
        assert!(text.contains("200ms"), "{text}");
    });
}

#[test]
fn what_the_server_refuses_is_named() {
    with_server(|server| async move {
        let port = server.process.port();
        for (url, expected) in [
            (
                format!("postgres://service:secrets@127.0.0.1:{port}/postgres"),
                "let this user in",
            ),
            (
                format!("postgres://service@127.0.0.1:{port}/postgres"),
                "in this way",
            ),
            (
                format!("postgres://app@127.0.0.1:{port}/secretless"),
                "no such database",
            ),
            (
                format!("postgres://app@127.0.0.1:{port}/postgres?sslmode=require"),
                "TLS",
            ),
        ] {
            let url = url.replace("secretless", "nowhere");
            let (kind, text) = refused(&url).await;
            assert_eq!(kind, LockErrorKind::InvalidConfig, "{text}");
            assert!(text.contains(expected), "{text}");
        }
    });
}

#[test]
fn a_pooler_that_exchanges_sessions_is_refused() {
    with_server(|server| async move {
        for mode in ["transaction", "statement"] {
            let Some(pooler) = PgBouncer::start(&server.process, mode, "") else {
                return;
            };
            let (kind, text) = refused(&pooler.url()).await;
            assert_eq!(kind, LockErrorKind::Unsupported, "{mode}: {text}");
            assert!(text.contains("pooler"), "{mode}: {text}");
        }
        let Some(pooler) = PgBouncer::start(&server.process, "session", "") else {
            return;
        };
        let provider = PostgresProvider::connect(pooler.url()).await.unwrap();
        let provider = std::sync::Arc::new(provider);
        let guard = take(&provider, "order").await;
        assert_eq!(server.locks(true).await, 1);
        guard.release().await.unwrap();
        assert_eq!(server.locks(true).await, 0);
    });
}

/// Two sessions on the server are served in turn, so each client's next request but one meets the
/// same again.
#[test]
fn a_pooler_that_exchanges_sessions_in_turn_is_refused() {
    with_server(|server| async move {
        let in_turn = "server_round_robin = 1";
        let Some(pooler) = PgBouncer::start(&server.process, "transaction", in_turn) else {
            return;
        };
        let mut clients = Vec::new();
        for _ in 0..2 {
            let url = pooler.url();
            let connecting = tokio_postgres::connect(&url, tokio_postgres::NoTls);
            let (client, connection) = connecting.await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("BEGIN").await.unwrap();
            clients.push(client);
        }
        for client in &clients {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        assert_eq!(server.sessions().await, 2);
        let (kind, text) = refused(&pooler.url()).await;
        assert_eq!(kind, LockErrorKind::Unsupported, "{text}");
        assert!(text.contains("pooler"), "{text}");
    });
}

#[test]
fn sessions_outlive_the_runtime_that_opened_them_and_end_with_the_provider() {
    with_server(|server| async move {
        let builder = server.builder();
        let provider = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.build().unwrap();
            runtime.block_on(builder.connect()).unwrap()
        });
        let provider = std::sync::Arc::new(provider.join().unwrap());
        take(&provider, "order").await.release().await.unwrap();
        drop(provider);
        lock_tests::eventually("no session is left", BOUND, || async {
            server.sessions().await == 0
        })
        .await;
    });
}

#[test]
fn what_answers_is_named() {
    with_server(|server| async move {
        let standby = server.process.start_standby();
        let (kind, text) = refused(&standby.url()).await;
        assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{text}");
        assert!(text.contains("standby"), "{text}");
        assert!(
            text.contains(&format!("server `127.0.0.1:{}`", standby.port())),
            "{text}"
        );

        let old = Impostor::answering(&greeting("13.99")).await;
        let (kind, text) = refused(&old.url()).await;
        assert_eq!(kind, LockErrorKind::Unsupported, "{text}");
        assert!(text.contains("14 or newer, got 13.99"), "{text}");

        let web = Impostor::answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let (kind, text) = refused(&web.url()).await;
        assert_ne!(kind, LockErrorKind::Unsupported, "{text}");
        assert!(text.contains("no PostgreSQL server"), "{text}");
    });
}

/// A peer that says the same to every client, and hangs up.
struct Impostor {
    port: u16,
    accepting: tokio::task::JoinHandle<()>,
}

impl Impostor {
    async fn answering(words: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let words = words.to_vec();
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = client.read(&mut request).await;
                let _ = client.write_all(&words).await;
                let _ = client.shutdown().await;
                // Whoever hangs up with something unread loses what it said.
                while client.read(&mut request).await.is_ok_and(|read| read > 0) {}
            }
        });
        Self { port, accepting }
    }

    fn url(&self) -> String {
        format!("postgres://u:secret@127.0.0.1:{}/d", self.port)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Returns what a server of this version says to a user who needs no password.
fn greeting(version: &str) -> Vec<u8> {
    let message = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind][..], &length, body].concat()
    };
    [
        message(b'R', &0_u32.to_be_bytes()),
        message(b'S', format!("server_version\0{version}\0").as_bytes()),
        message(b'Z', b"I"),
    ]
    .concat()
}
