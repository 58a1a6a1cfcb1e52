//! A server that is killed, frozen or gone.

use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, ZooKeeperProvider};
use lock_tests::{ZooKeeperServer, free_port};

use crate::common::{DEADLINE, Place, connected, lock, take, token};

#[test]
fn locks_waiters_and_tokens_outlive_a_restart() {
    lock_tests::run(DEADLINE, async {
        let Some(mut server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let (first, second) = (place.provider().await, place.provider().await);
        let guard = take(&first, "order").await;
        let waiter = tokio::spawn(async move { lock(&second, "order").acquire().await.unwrap() });
        let children = place.until_children("order", 2).await;
        server.kill();
        server.start_again();
        place.until_children("order", 2).await;
        assert_eq!(place.children("order").await, children, "as before");
        assert!(!guard.is_lost(), "the lease is long");
        let before = token(&guard);
        guard.release().await.unwrap();
        let guard = waiter.await.unwrap();
        assert!(token(&guard) > before);
        let before = token(&guard);
        guard.release().await.unwrap();
        server.kill();
        server.start_again();
        let guard = take(&first, "order").await;
        assert!(token(&guard) > before);
    });
}

#[test]
fn a_server_that_is_gone_is_told_within_the_connect_timeout() {
    lock_tests::run(DEADLINE, async {
        let Some(mut server) = ZooKeeperServer::start() else {
            return;
        };
        let timeout = Duration::from_secs(1);
        let place = Place::on(server.port()).await;
        let builder = place.builder().connect_timeout(timeout);
        let provider = connected(builder.lease(Duration::from_secs(4))).await;
        let guard = take(&provider, "order").await;
        server.process().freeze();
        let soon = |start: Instant| {
            assert!(start.elapsed() < timeout + timeout, "{:?}", start.elapsed());
        };
        let start = Instant::now();
        let error = lock(&provider, "other").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        soon(start);
        guard.lost().await;
        server.kill();
        for _ in 0..3 {
            let start = Instant::now();
            let error = lock(&provider, "other").try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            soon(start);
        }
        server.start_again();
        take(&provider, "other").await.release().await.unwrap();
    });
}

#[test]
fn nobody_listening_is_an_error_at_once() {
    lock_tests::run(DEADLINE, async {
        let hosts = format!("127.0.0.1:{},127.0.0.1:{}", free_port(), free_port());
        let start = Instant::now();
        let error = ZooKeeperProvider::connect(format!("zookeeper://user:hunter2@{hosts}")).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert!(start.elapsed() < Duration::from_secs(6));
    });
}
