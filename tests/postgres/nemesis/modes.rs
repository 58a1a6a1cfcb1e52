//! The same for readers, writers and permits: their windows are judged.

use std::time::{Duration, Instant};

use lock_runtime::LockMode;
use lock_tests::any_lock::permits;
use lock_tests::nemesis::{self, Nemesis};
use lock_tests::postgres::PostgresOptions;
use lock_tests::workers::{Plan, Workers};
use lock_tests::{AnyLock, RegisterServer, Rng, eventually};

use super::AROUND;
use super::cluster::{Cluster, SLOW};
use crate::common::{BOUND, Server, connected};

const NAMES: [&str; 3] = ["rw", "permits", "rw-of-another-length"];
const LEASE: Duration = Duration::from_secs(1);

#[test]
fn nothing_breaks_for_readers_and_permits_under_random_faults() {
    nemesis::for_each_seed(8, AROUND, survive);
}

async fn survive(seed: u64, length: Duration) {
    let Some(process) = PostgresOptions::default().start() else {
        return;
    };
    let register = RegisterServer::start().await;
    let mut rng = Rng::new(seed);
    let lease = LEASE.as_millis();
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_lock-probe").into(),
        url: format!("postgres://app@127.0.0.1:PORT/postgres?lease={lease}ms"),
        names: NAMES.map(str::to_owned).to_vec(),
        register_port: register.port(),
        command: "contend-modes",
    };
    let mut workers = Workers::spawn(process.port(), plan, rng.number()).await;
    let mut cluster = Cluster {
        server: process,
        nemesis: Nemesis::new(rng),
        faults: &SLOW,
    };
    let start = Instant::now();
    while start.elapsed() < length {
        cluster.inject(&mut workers).await;
    }
    cluster.clear(&mut workers).await;
    let windows = workers.windows.clone();
    let (_, refused_to_holders) = workers.finish().await;

    let Cluster {
        server: process,
        nemesis,
        ..
    } = cluster;
    let server = Server::of(process).await;
    let seen = windows.check();
    nemesis::report_modes(seed, &seen, register.register(), &nemesis);
    assert!(
        refused_to_holders.is_empty(),
        "holders were refused: {refused_to_holders:?}"
    );
    nemesis::assert_progress_of_modes(&seen, 8, &nemesis);
    // Everybody is gone. What they could not give back ends with its lease.
    server.until_free(LEASE + BOUND).await;
    eventually("no session is left", LEASE + BOUND, || async {
        server.sessions().await == 0
    })
    .await;
    let provider = connected(server.builder()).await;
    for name in NAMES {
        let mode = match name {
            "permits" => permits(4, 4),
            _ => LockMode::Write,
        };
        let lock = AnyLock::on(mode, provider.clone(), name);
        let held = lock.acquire_for(BOUND).await;
        held.expect("everybody is gone").release().await.unwrap();
    }
}
