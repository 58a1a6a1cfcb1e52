//! Many names are contended for, and none starves.

use std::path::Path;

use lock_tests::ZooKeeperServer;
use lock_tests::fairness::{bound, nobody_starves};

use crate::common::DEADLINE;

#[test]
fn no_name_starves_however_many_there_are() {
    lock_tests::run(bound(DEADLINE), async {
        // Its load would be the others'.
        if let Some(server) = ZooKeeperServer::start() {
            let program = Path::new(env!("CARGO_BIN_EXE_lock-probe"));
            nobody_starves(program, &server.url()).await;
        }
    });
}
