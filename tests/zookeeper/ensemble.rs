//! Three servers, of which one leads.

use std::time::Duration;

use lock_runtime::ZooKeeperProvider;
use lock_tests::{ZooKeeperServer, eventually};

use crate::common::{BOUND, Place, connected, lock, take, token, waiting};

#[test]
fn a_lock_outlives_the_leader() {
    lock_tests::run(Duration::from_secs(180), async {
        let Some(mut servers) = ZooKeeperServer::ensemble(3) else {
            return;
        };
        let hosts: Vec<_> = servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port()))
            .collect();
        let url = format!("zookeeper://{}/locks?lease=60s", hosts.join(","));
        let (first, second) = (
            connected(ZooKeeperProvider::builder(&url)).await,
            connected(ZooKeeperProvider::builder(&url)).await,
        );
        let guard = take(&first, "order").await;
        let waiter = waiting(&second, "order");
        assert!(servers.iter().any(ZooKeeperServer::leads));
        let leader = servers.iter().position(ZooKeeperServer::leads).unwrap();
        let follower = servers[(leader + 1) % 3].port();
        let mut place = Place::on(follower).await;
        place.directory = "/locks".to_owned();
        place.until_children("order", 2).await;

        servers[leader].kill();
        eventually("another one leads", BOUND, || async {
            servers.iter().any(ZooKeeperServer::leads)
        })
        .await;
        place.until_children("order", 2).await;
        assert!(!guard.is_lost(), "the session lives on");
        assert!(!waiter.is_finished(), "and nobody else has the lock");
        let before = token(&guard);
        guard.release().await.unwrap();
        let guard = waiter.await.unwrap();
        assert!(token(&guard) > before, "tokens grow over an election");
        guard.release().await.unwrap();
        for provider in [&first, &second] {
            let guard = lock(provider, "order").acquire_for(BOUND).await.unwrap();
            guard.release().await.unwrap();
        }
    });
}
