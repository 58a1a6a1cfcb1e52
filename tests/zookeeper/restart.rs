//! A server that is killed and started again.

use lock_tests::ZooKeeperServer;

use crate::common::{DEADLINE, Place, lock, take, token};

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
