//! Many names are contended for, and none starves.

use std::sync::Arc;

use lock_runtime::LockProvider;
use lock_tests::ZooKeeperServer;
use lock_tests::fairness::{bound, nobody_starves};

use crate::common::{DEADLINE, Place};

#[test]
fn no_name_starves_however_many_there_are() {
    lock_tests::run(bound(DEADLINE), async {
        // Its load would be the others'.
        let Some(server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let (one, other) = (place.provider().await, place.provider().await);
        let providers: [Arc<dyn LockProvider>; 2] = [one, other];
        nobody_starves(&providers).await;
    });
}
