//! Which servers make a quorum.

use std::time::Duration;

use lock_runtime::{LockErrorKind, RedisQuorumProvider};

use super::{YOUNG, take, timed, url, with_servers};
use crate::common::{Server, connected, follow};

#[test]
fn a_majority_is_enough_to_start() {
    with_servers(3, |mut servers| async move {
        let parameters = format!("{YOUNG}&connect_timeout=1s");
        servers.0[0].process.kill();
        let (provider, took) = timed(servers.provider(&parameters)).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        take(&provider, "order")
            .await
            .release()
            .await
            .expect("held");
        servers.0[1].process.kill();
        let url = url(&servers.ports(), &parameters);
        let (connected, took) = timed(lock_runtime::connect(&url)).await;
        let error = connected.err().expect("one of three");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("2 of 3 servers"), "{error}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        // The first server is back.
        servers.0[0].process.restart_empty();
        take(&provider, "order")
            .await
            .release()
            .await
            .expect("held");
    });
}

#[test]
fn one_server_under_two_names_is_refused() {
    with_servers(2, |servers| async move {
        let ports = servers.ports();
        let urls = [
            format!("redis://127.0.0.1:{}", ports[0]),
            format!("redis://localhost:{}", ports[0]),
            format!("redis://127.0.0.1:{}", ports[1]),
        ];
        let error = RedisQuorumProvider::builder(urls).connect().await;
        let error = error.expect_err("two votes of one server");
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("lead to one server"), "{error}");
    });
}

#[test]
fn a_replica_does_not_vote() {
    with_servers(3, |servers| async move {
        let [first, second, third]: &[Server; 3] = servers.0[..].try_into().expect("three");
        let _first = follow(first, second).await;
        let _second = follow(first, third).await;
        let parameters = format!("{YOUNG}&connect_timeout=1s");
        let error = lock_runtime::connect(&url(&servers.ports(), &parameters)).await;
        let error = error.err().expect("one server and its replicas");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("replica"), "{error}");
    });
}

#[test]
fn a_lease_is_no_longer_than_servers_wait() {
    with_servers(3, |servers| async move {
        let provider = servers
            .provider(&format!("{YOUNG}&longest_lease=40s"))
            .await;
        let lock = super::lock(&provider, "order").lease(Duration::from_secs(41));
        let error = lock.acquire().await.expect_err("too long");
        assert_eq!(error.kind(), LockErrorKind::Unsupported, "{error}");
    });
}

/// One server's provider and a quorum that has it as a member exclude each other by its key.
#[test]
fn a_provider_of_one_server_sees_the_vote() {
    with_servers(3, |servers| async move {
        let quorum = servers.provider(YOUNG).await;
        let one = connected(servers.0[0].builder()).await;
        let _guard = take(&quorum, "order").await;
        let tried = crate::common::lock(&one, "order").try_acquire().await;
        assert!(tried.expect("it answers").is_none());
    });
}
