//! The same for readers, writers and permits: their windows are judged.

use std::time::{Duration, Instant};

use lock_runtime::LockMode;
use lock_tests::any_lock::permits;
use lock_tests::nemesis::{self, Nemesis};
use lock_tests::workers::{Plan, Workers};
use lock_tests::{AnyLock, RegisterServer, Rng, ZooKeeperServer, eventually};

use super::cluster::Cluster;
use super::{AROUND, LEASE};
use crate::common::{BOUND, Place};

const NAMES: [&str; 2] = ["rw", "permits"];

#[test]
fn nothing_breaks_for_readers_and_permits_under_random_faults() {
    nemesis::for_each_seed(16, AROUND, survive);
}

async fn survive(seed: u64, length: Duration) {
    let Some(server) = ZooKeeperServer::start() else {
        return;
    };
    let place = Place::on(server.port()).await;
    let register = RegisterServer::start().await;
    let mut rng = Rng::new(seed);
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_lock-probe").into(),
        url: place.url("PORT", LEASE),
        names: NAMES.map(str::to_owned).to_vec(),
        register_port: register.port(),
        command: "contend-modes",
    };
    let mut workers = Workers::spawn(server.port(), plan, rng.number()).await;
    let mut cluster = Cluster {
        server,
        nemesis: Nemesis::new(rng),
    };
    let start = Instant::now();
    while start.elapsed() < length {
        cluster.inject(&mut workers).await;
    }
    cluster.nemesis.clear(&mut workers);
    let windows = workers.windows.clone();
    let (_, refused_to_holders) = workers.finish().await;

    let seen = windows.check();
    nemesis::report_modes(seed, &seen, register.register(), &cluster.nemesis);
    assert!(
        refused_to_holders.is_empty(),
        "holders were refused: {refused_to_holders:?}"
    );
    nemesis::assert_progress_of_modes(&seen, 0, &cluster.nemesis);
    for name in NAMES {
        eventually("nobody queues", LEASE * 2 + BOUND, || async {
            place.children(name).await.is_empty()
        })
        .await;
    }
    let provider = place.provider().await;
    for (name, mode) in [
        ("rw", LockMode::Write),
        ("rw", LockMode::Read),
        ("permits", permits(4, 4)),
        ("permits", permits(1, 4)),
    ] {
        let lock = AnyLock::on(mode, provider.clone(), name);
        let held = lock.acquire_for(BOUND).await;
        held.expect("everybody is gone").release().await.unwrap();
    }
}
