//! Everything at once: processes contend for a few locks while a nemesis makes the network, the
//! server and the processes themselves fail. An overlap checker and a fenced register judge them.
//!
//! It lasts 12 seconds with one seed, unless the environment says otherwise: see
//! [`lock_tests::nemesis`].

mod cluster;
mod modes;

use std::time::{Duration, Instant};

use lock_tests::nemesis::{self, Nemesis};
use lock_tests::workers::{Plan, Workers};
use lock_tests::{RegisterServer, Rng, ZooKeeperServer, eventually};

use crate::common::{BOUND, Place, take};
use cluster::Cluster;

const NAMES: [&str; 3] = ["anchor", "bridge", "cargo"];
const LEASE: Duration = Duration::from_secs(2);
/// The time that one seed may take besides the time in which faults are injected.
const AROUND: Duration = Duration::from_secs(90);

#[test]
fn nothing_breaks_under_random_faults() {
    nemesis::for_each_seed(12, AROUND, survive);
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
        command: "contend",
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
    let (history, refused_to_holders) = workers.finish().await;

    nemesis::report(seed, &history, register.register(), &cluster.nemesis);
    nemesis::assert_exclusive(&history, &refused_to_holders);
    nemesis::assert_progress(&history, 10, &cluster.nemesis);
    nothing_is_left(&place).await;
    let provider = place.provider().await;
    for name in NAMES {
        take(&provider, name).await.release().await.unwrap();
    }
}

/// Waits until nobody queues. What the processes could not give back ends with their sessions. A
/// lock's node is not ephemeral, and who comes next removes it.
async fn nothing_is_left(place: &Place) {
    for name in NAMES {
        eventually("nobody queues", LEASE * 2 + BOUND, || async {
            place.children(name).await.is_empty()
        })
        .await;
    }
}
