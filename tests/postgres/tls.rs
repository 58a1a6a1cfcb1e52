//! TLS, with an authority of the test's own.

use lock_runtime::{LockErrorKind, PostgresProvider};
use lock_tests::Scratch;
use lock_tests::certificates;
use lock_tests::postgres::PostgresOptions;
use lock_tests::skip;

use crate::common::{DEADLINE, connected, take, with_server};

#[test]
fn certificates_of_a_given_authority_are_trusted_and_others_not() {
    lock_tests::run(DEADLINE, async {
        let scratch = Scratch::new();
        let Some(tls) = certificates::make(scratch.path()) else {
            return skip::because("openssl could not make certificates");
        };
        let Some(server) = PostgresOptions::default().tls(tls).start() else {
            return;
        };
        let url = format!("{}?sslmode=require", server.url());
        let pem = |name: &str| std::fs::read(scratch.join(name)).unwrap();

        let trusting = PostgresProvider::builder(&url)
            .root_certificates(pem("ca.pem"))
            .client_certificate(pem("server.pem"), pem("server.key"));
        let provider = connected(trusting).await;
        let guard = take(&provider, "order").await;
        let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_locks USING (pid) \
                         WHERE ssl AND locktype = 'advisory'";
        assert_eq!(server.psql("postgres", encrypted).unwrap(), "1");
        guard.release().await.unwrap();

        let file = |name: &str| scratch.join(name).display().to_string();
        let by_url = format!("{url}&sslrootcert={}", file("ca.pem"));
        let itself = format!(
            "&sslcert={}&sslkey={}",
            file("server.pem"),
            file("server.key")
        );
        let provider = connected(PostgresProvider::builder(format!("{by_url}{itself}"))).await;
        let guard = take(&provider, "order").await;
        let shown = "SELECT count(*) FROM pg_stat_ssl JOIN pg_locks USING (pid) \
                     WHERE client_dn = '/CN=server' AND locktype = 'advisory'";
        assert_eq!(server.psql("postgres", shown).unwrap(), "1");
        guard.release().await.unwrap();
        for (wrong, expected) in [
            (
                format!("{by_url}&sslcert={}", file("server.pem")),
                "`sslkey`",
            ),
            (
                format!("{url}&sslrootcert={}", file("none.pem")),
                "none.pem",
            ),
        ] {
            let error = PostgresProvider::connect(wrong).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }

        let strangers = PostgresProvider::builder(&url).root_certificates(pem("other.pem"));
        let error = strangers.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");

        let plain = PostgresProvider::builder(server.url()).root_certificates(pem("ca.pem"));
        let error = plain.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    });
}

#[test]
fn a_server_without_tls_is_told_as_such() {
    with_server(|server| async move {
        let url = format!("{}?sslmode=require", server.process.url());
        let error = PostgresProvider::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        let text = error.to_string();
        assert!(text.contains("does not offer TLS"), "{text}");
    });
}
