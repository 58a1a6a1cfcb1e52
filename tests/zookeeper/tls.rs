//! TLS, with an authority of the test's own.

use std::time::Duration;

use lock_runtime::{LockErrorKind, ZooKeeperProvider};
use lock_tests::skip;
use lock_tests::{Scratch, ZooKeeperServer, certificates};

use crate::common::{DEADLINE, connected, take};

#[test]
fn certificates_of_a_given_authority_are_trusted_and_others_not() {
    lock_tests::run(DEADLINE, async {
        let scratch = Scratch::new();
        let Some(tls) = certificates::make(scratch.path()) else {
            return skip::because("openssl could not make certificates");
        };
        let Some(keys) = certificates::key_store(&tls, "secret") else {
            return skip::because("openssl could not make a key store");
        };
        let Some(server) = ZooKeeperServer::start_with_tls(&keys, "secret", &tls.ca) else {
            return;
        };
        let url = format!("zookeeper://127.0.0.1:{}", server.tls_port());
        let pem = |name: &str| std::fs::read_to_string(scratch.join(name)).unwrap();

        let trusting = ZooKeeperProvider::builder(&url).root_certificates(pem("ca.pem"));
        let guard = take(&connected(trusting).await, "order").await;
        guard.release().await.unwrap();

        let known = ZooKeeperProvider::builder(&url)
            .root_certificates(pem("ca.pem"))
            .client_certificate(pem("server.pem"), pem("server.key"));
        let guard = take(&connected(known).await, "order").await;
        guard.release().await.unwrap();

        for wrong in [
            ZooKeeperProvider::builder(&url).root_certificates(pem("other.pem")),
            // Without TLS.
            ZooKeeperProvider::builder(&url),
        ] {
            let error = wrong
                .connect_timeout(Duration::from_secs(2))
                .connect()
                .await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            assert!(error.to_string().contains("TLS"), "the cause: {error}");
        }
        let nothing = ZooKeeperProvider::builder(&url).root_certificates("nothing");
        let error = nothing.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    });
}
