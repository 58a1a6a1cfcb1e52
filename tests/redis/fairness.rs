//! Many names are contended for, and none starves.

use std::sync::Arc;

use lock_runtime::LockProvider;
use lock_tests::RedisServer;
use lock_tests::fairness::{bound, nobody_starves};

use crate::common::{DEADLINE, Server};

#[test]
fn no_name_starves_however_many_there_are() {
    lock_tests::run(bound(DEADLINE), async {
        let Some(process) = RedisServer::start_plain() else {
            return;
        };
        let server = Server::of(process).await;
        let (one, other) = (server.provider().await, server.provider().await);
        let providers: [Arc<dyn LockProvider>; 2] = [one, other];
        nobody_starves(&providers).await;
    });
}
