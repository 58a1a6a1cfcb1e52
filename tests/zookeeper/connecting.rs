//! Settings, credentials and rights.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_runtime::{LockErrorKind, LockProvider, ZooKeeperAcl, ZooKeeperProvider};
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Error, Permission};

use crate::common::{BOUND, connected, lock, take, waiting, with_server};

/// The identity of `reader:secret`: `base64(sha1("reader:secret"))`, as
/// `DigestAuthenticationProvider` makes it.
const READER: &str = "reader:TwMYkJISsEPORbrSYGWeRLjeNEk=";

#[test]
fn the_server_has_the_last_word_on_the_lease() {
    with_server(|place| async move {
        let provider = connected(place.builder().lease(Duration::from_millis(100))).await;
        let lease = provider.capabilities().lease;
        assert_eq!(lease, Some(Duration::from_millis(400)), "two ticks");
    });
}

#[test]
fn everything_can_be_said_in_the_url() {
    with_server(|place| async move {
        let url = format!(
            "zookeeper://127.0.0.1:{}{}/deep/er\
             ?key_prefix=App:&lease=9s&connect_timeout=8s&response_timeout=1s&acl=open",
            place.port, place.directory
        );
        let provider = lock_runtime::connect(&url).await.unwrap();
        let capabilities = provider.capabilities();
        assert_eq!(capabilities.lease, Some(Duration::from_secs(9)));
        let response_timeout = Duration::from_secs(1);
        assert_eq!(capabilities.response_timeout, Some(response_timeout));
        let lock = lock_runtime::DistributedLock::on(provider, "order");
        let guard = lock.acquire_for(BOUND).await.unwrap();
        assert_eq!(place.children("deep/er/App:order").await.len(), 1);
        guard.release().await.unwrap();
    });
}

#[test]
fn only_its_creator_sees_the_lock() {
    with_server(|place| async move {
        let provider = connected(
            place
                .builder()
                .username("service")
                .password("hunter2")
                .acl(ZooKeeperAcl::Creator),
        )
        .await;
        assert!(!format!("{provider:?}").contains("hunter2"));
        let guard = take(&provider, "order").await;
        let stranger = place.raw.list_children(&place.node("order")).await;
        assert_eq!(stranger, Err(Error::NoAuth));
        let friend = Client::connector()
            .with_auth("digest", b"service:hunter2")
            .connect(&format!("127.0.0.1:{}", place.port))
            .await
            .unwrap();
        let children = friend.list_children(&place.node("order")).await.unwrap();
        assert_eq!(children.len(), 1);

        for builder in [
            place.builder(),
            place.builder().username("service").password("wrong"),
        ] {
            let other = connected(builder).await;
            let error = lock(&other, "order").acquire_for(BOUND).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
            assert!(error.to_string().contains("ACL"), "{error}");
            assert!(!format!("{error:?}").contains("wrong"));
        }
        let same = connected(place.builder().username("service").password("hunter2")).await;
        assert!(lock(&same, "order").try_acquire().await.unwrap().is_none());
        guard.release().await.unwrap();
        take(&same, "order").await.release().await.unwrap();
    });
}

/// A refused creation has left nothing, so the provider does not look for it.
#[test]
fn a_refusal_is_the_end() {
    with_server(|place| async move {
        let service = place.builder().username("service").password("hunter2");
        let guard = take(
            &connected(service.acl(ZooKeeperAcl::Creator)).await,
            "order",
        )
        .await;
        let (proxy, stranger) = place.behind_proxy(|builder| builder).await;
        for _ in 0..3 {
            let refused = lock(&stranger, "order").acquire_for(BOUND).await;
            assert_eq!(refused.unwrap_err().kind(), LockErrorKind::InvalidConfig);
        }
        let asked = || proxy.counts().to_server.load(Ordering::Relaxed);
        let before = asked();
        tokio::time::sleep(Duration::from_secs(1)).await;
        // A sign of life has twelve bytes.
        assert!(asked() - before <= 24, "{} bytes", asked() - before);
        guard.release().await.unwrap();
    });
}

/// The documentation names these rights.
#[test]
fn creating_and_deleting_in_the_directory_is_all_that_is_needed() {
    with_server(|place| async move {
        let id = AuthId::new("digest", READER);
        let rights = Permission::CREATE | Permission::DELETE;
        let acl = [Acl::new(rights, id)];
        let options = CreateMode::Persistent.with_acls(Acls::new(&acl));
        let made = place.raw.create(&place.directory, b"", &options).await;
        made.expect("the directory is made");
        let provider = connected(place.builder().username("reader").password("secret")).await;
        let guard = take(&provider, "order").await;
        assert_eq!(place.children("order").await.len(), 1);
        let waiter = waiting(&provider, "order");
        guard.release().await.unwrap();
        waiter.await.unwrap().release().await.unwrap();
        assert!(!place.exists("order").await);
        let stranger = place.provider().await;
        let error = lock(&stranger, "order").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    });
}

#[test]
fn the_acl_may_name_somebody() {
    with_server(|place| async move {
        let acl = ZooKeeperAcl::Digest(READER.to_owned());
        let builder = place
            .builder()
            .username("reader")
            .password("secret")
            .acl(acl);
        let provider = connected(builder).await;
        let guard = take(&provider, "order").await;
        let stranger = place.raw.list_children(&place.node("order")).await;
        assert_eq!(stranger, Err(Error::NoAuth));
        guard.release().await.unwrap();
    });
}

#[test]
fn mistakes_are_named() {
    with_server(|place| async move {
        for (wrong, word) in [
            ("?lease=1", "lease"),
            ("?lease=1ms", "lease"),
            ("?connect_timeout=0s", "timeout"),
            ("?response_timeout=0s", "timeout"),
            ("?tickets=1", "tickets"),
            ("?acl=creator", "credentials"),
            ("/a//b", "directory"),
            ("/..", "directory"),
        ] {
            let url = format!("zookeeper://127.0.0.1:{}{wrong}", place.port);
            let error = ZooKeeperProvider::connect(url).await.unwrap_err();
            assert_eq!(
                error.kind(),
                LockErrorKind::InvalidConfig,
                "{wrong}: {error}"
            );
            assert!(error.to_string().contains(word), "{wrong}: {error}");
        }
    });
}
