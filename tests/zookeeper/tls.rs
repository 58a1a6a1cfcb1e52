//! TLS, with an authority of the test's own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lock_runtime::{LockErrorKind, ZooKeeperProvider};
use lock_tests::policy::skip;
use lock_tests::{Scratch, ZooKeeperServer};

use crate::common::{DEADLINE, connected, take};

fn openssl(directory: &Path, arguments: &str) -> bool {
    let mut command = Command::new("openssl");
    command
        .args(arguments.split_whitespace())
        .current_dir(directory);
    command.output().is_ok_and(|output| output.status.success())
}

/// Two authorities, and by the first one a certificate for 127.0.0.1 as ZooKeeper takes it.
fn certificates(directory: &Path) -> bool {
    std::fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    ["ca", "other"].iter().all(|authority| {
        openssl(
            directory,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} \
                 -addext basicConstraints=critical,CA:TRUE \
                 -keyout {authority}.key -out {authority}.pem"
            ),
        )
    }) && openssl(
        directory,
        "req -newkey rsa:2048 -nodes -subj /CN=zookeeper -keyout server.key -out server.csr",
    ) && openssl(
        directory,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    ) && openssl(
        directory,
        "pkcs12 -export -in server.pem -inkey server.key -passout pass:secret -out server.p12",
    )
}

#[test]
fn certificates_of_a_given_authority_are_trusted_and_others_not() {
    lock_tests::run(DEADLINE, async {
        let scratch = Scratch::new();
        if !certificates(scratch.path()) {
            return skip("openssl could not make certificates");
        }
        let Some(server) = ZooKeeperServer::start_with_tls(
            &scratch.join("server.p12"),
            "secret",
            &scratch.join("ca.pem"),
        ) else {
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
        }
        let nothing = ZooKeeperProvider::builder(&url).root_certificates("nothing");
        let error = nothing.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    });
}
