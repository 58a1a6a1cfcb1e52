//! TLS, with an authority of the test's own.

use lock_runtime::{LockErrorKind, RedisProvider};
use lock_tests::redis::RedisOptions;
use lock_tests::skip;
use lock_tests::{RedisServer, Scratch, certificates};

use crate::common::{DEADLINE, connected, take};

fn start(scratch: &Scratch) -> Option<RedisServer> {
    let Some(tls) = certificates::make(scratch.path()) else {
        skip::because("openssl could not make certificates");
        return None;
    };
    RedisOptions::default().tls(tls).start()
}

#[test]
fn certificates_of_a_given_authority_are_trusted_and_others_not() {
    lock_tests::run(DEADLINE, async {
        let scratch = Scratch::new();
        let Some(server) = start(&scratch) else {
            return;
        };
        let url = format!(
            "rediss://127.0.0.1:{}",
            server.tls_port().expect("it listens")
        );
        let pem = |name: &str| std::fs::read(scratch.join(name)).unwrap();

        let trusting = RedisProvider::builder(&url).root_certificates(pem("ca.pem"));
        take(&connected(trusting).await, "order")
            .await
            .release()
            .await
            .unwrap();

        let known = RedisProvider::builder(&url)
            .root_certificates(pem("ca.pem"))
            .client_certificate(pem("server.pem"), pem("server.key"));
        take(&connected(known).await, "order")
            .await
            .release()
            .await
            .unwrap();

        // Nobody but the client knows these.
        let certificates = redis::TlsCertificates {
            client_tls: None,
            root_cert: Some(pem("ca.pem")),
        };
        let client = redis::Client::build_with_tls(url.as_str(), certificates).unwrap();
        let given = RedisProvider::builder_from_client(client);
        take(&connected(given).await, "order")
            .await
            .release()
            .await
            .unwrap();

        let strangers = RedisProvider::builder(&url).root_certificates(pem("other.pem"));
        let error = strangers.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");

        let plain = RedisProvider::builder(server.url()).root_certificates(pem("ca.pem"));
        let error = plain.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    });
}
