//! Users, passwords and certificates of sentinels, which are apart from the servers'.

use lock_runtime::{LockErrorKind, RedisProvider};
use lock_tests::redis::RedisOptions;
use lock_tests::redis::sentinel::{SENTINEL_LEAST_PRIVILEGE, SentinelOptions};
use lock_tests::{Scratch, certificates, skip};

use super::service::with_service;
use crate::common::{connected, take};

#[test]
fn passwords_of_sentinels_and_servers_are_told_apart() {
    let servers = RedisOptions::default()
        .acl("user default on nopass ~* &* +@all")
        .acl("user app on >of-servers ~* &* +@all");
    let options = SentinelOptions::default()
        .with(0, 1)
        .servers(servers)
        .config("requirepass of-sentinels")
        .config(&format!("user app on >least {SENTINEL_LEAST_PRIVILEGE}"))
        .password("of-sentinels");
    with_service(options, |service| async move {
        let hosts = service.all.hosts();
        let url = |server: &str, sentinel: &str| {
            format!("redis-sentinel://app:{server}@{hosts}?service=orders&{sentinel}")
        };
        for sentinel in [
            "sentinel_password=of-sentinels",
            "sentinel_username=app&sentinel_password=least",
        ] {
            let provider = connected(RedisProvider::builder(url("of-servers", sentinel))).await;
            take(&provider, "order").await.release().await.unwrap();
        }
        let one = format!("redis://app:least@{hosts}");
        let provider = RedisProvider::sentinel("orders", [one])
            .username("app")
            .password("of-servers");
        take(&connected(provider).await, "order")
            .await
            .release()
            .await
            .unwrap();

        for (server, sentinel, whose) in [
            ("of-servers", "sentinel_password=wrong", "sentinel `"),
            ("of-servers", "lease=9s", "sentinel `"),
            ("wrong", "sentinel_password=of-sentinels", "server `"),
        ] {
            let error = RedisProvider::connect(url(server, sentinel))
                .await
                .unwrap_err();
            let text = format!("{error} {error:?}");
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{text}");
            assert!(text.contains(&format!(": {whose}127.0.0.1:")), "{text}");
            let names_setting = text.contains("`sentinel_password`");
            assert_eq!(names_setting, whose == "sentinel `", "{text}");
            assert!(!text.contains("of-se") && !text.contains("wrong"), "{text}");
        }
    });
}

#[test]
fn sentinels_may_speak_tls_alone() {
    let scratch = Scratch::new();
    let Some(tls) = certificates::make(scratch.path()) else {
        return skip::because("openssl could not make certificates");
    };
    let port = lock_tests::free_port();
    let mut options = SentinelOptions::default().with(0, 1);
    for line in [
        format!("tls-port {port}"),
        format!("tls-cert-file {}", tls.certificate.display()),
        format!("tls-key-file {}", tls.key.display()),
        format!("tls-ca-cert-file {}", tls.ca.display()),
        "tls-auth-clients no".to_owned(),
    ] {
        options = options.config(&line);
    }
    let pem = move |name: &str| std::fs::read(scratch.join(name)).expect("it was made");
    with_service(options, move |service| async move {
        let url = format!("redis-sentinel://127.0.0.1:{port}?service=orders&sentinel_tls=true");
        let trusting = RedisProvider::builder(&url).sentinel_root_certificates(pem("ca.pem"));
        let provider = connected(trusting).await;
        take(&provider, "order").await.release().await.unwrap();

        let strangers = RedisProvider::builder(&url).sentinel_root_certificates(pem("other.pem"));
        let error = strangers.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");

        // The servers' authorities are trusted with the sentinels too; these servers speak no TLS.
        let both = format!("rediss-sentinel://127.0.0.1:{port}?service=orders");
        let both = RedisProvider::builder(both).root_certificates(pem("ca.pem"));
        let error = both.connect().await.unwrap_err().to_string();
        assert!(
            error.contains("server `127.0.0.1:") && error.contains("no TLS"),
            "{error}"
        );

        // One behind a server's URL is refused with the URL that it should have been.
        let plain = service.all.sentinels[0].port();
        for (url, expected) in [
            (
                format!("rediss://:secret@127.0.0.1:{port}"),
                format!("rediss-sentinel://127.0.0.1:{port}?service=name"),
            ),
            (
                format!("redis://:secret@127.0.0.1:{plain}"),
                format!("redis-sentinel://127.0.0.1:{plain}?service=name"),
            ),
            (
                format!("redis://:secret@127.0.0.1:{plain}/2"),
                "redis-sentinel://host:26379/database?service=name".to_owned(),
            ),
        ] {
            let builder = RedisProvider::builder(&url);
            let builder = match url.starts_with("rediss") {
                true => builder.root_certificates(pem("ca.pem")),
                false => builder,
            };
            let error = builder.connect().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Unsupported, "{error}");
            let text = format!("{error} {error:?}");
            assert!(
                text.contains(&expected) && !text.contains("secret"),
                "{text}"
            );
        }
        drop(service);
    });
}

/// Sentinels tell addresses, and a certificate may be for a name.
#[test]
fn a_server_is_verified_by_the_name_that_is_set() {
    let scratch = Scratch::new();
    let Some(tls) = certificates::make(scratch.path()) else {
        return skip::because("openssl could not make certificates");
    };
    let servers = RedisOptions::default().tls(tls);
    let pem = std::fs::read(scratch.join("ca.pem")).expect("it was made");
    with_service(
        SentinelOptions::default().with(0, 1).servers(servers),
        |service| async move {
            let _keep = scratch;
            let (plain, tls) = (
                service.all.servers[0].port(),
                service.all.servers[0].tls_port(),
            );
            let tls = tls.expect("it listens with TLS");
            let hosts = service.all.hosts();
            let url = format!("rediss-sentinel://{hosts}?service=orders&sentinel_tls=false");
            let builder = move |host: &'static str| {
                RedisProvider::builder(&url)
                    .root_certificates(pem.clone())
                    .address_map(move |_, port| {
                        assert_eq!(port, plain);
                        (host.to_owned(), tls)
                    })
            };
            // The certificate is for 127.0.0.1.
            let error = builder("localhost").connect().await.unwrap_err();
            assert!(error.to_string().contains("certificate"), "{error}");
            let named = builder("localhost").server_name("127.0.0.1");
            take(&connected(named).await, "order")
                .await
                .release()
                .await
                .unwrap();
        },
    );
}
