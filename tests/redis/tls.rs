//! TLS, with an authority of the test's own.

use std::path::Path;
use std::process::Command;

use lock_runtime::{LockErrorKind, RedisProvider};
use lock_tests::policy::skip;
use lock_tests::redis::{RedisOptions, Tls};
use lock_tests::{RedisServer, Scratch};

use crate::common::{DEADLINE, connected, take};

fn openssl(directory: &Path, arguments: &str) -> bool {
    let mut command = Command::new("openssl");
    command
        .args(arguments.split_whitespace())
        .current_dir(directory);
    command.output().is_ok_and(|output| output.status.success())
}

/// An authority, and a certificate by it for 127.0.0.1.
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
        "req -newkey rsa:2048 -nodes -subj /CN=redis -keyout server.key -out server.csr",
    ) && openssl(
        directory,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    )
}

fn start(scratch: &Scratch) -> Option<RedisServer> {
    if !certificates(scratch.path()) {
        skip("openssl could not make certificates");
        return None;
    }
    let tls = Tls {
        ca: scratch.join("ca.pem"),
        certificate: scratch.join("server.pem"),
        key: scratch.join("server.key"),
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

        let strangers = RedisProvider::builder(&url).root_certificates(pem("other.pem"));
        let error = strangers.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");

        let plain = RedisProvider::builder(server.url()).root_certificates(pem("ca.pem"));
        let error = plain.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    });
}
