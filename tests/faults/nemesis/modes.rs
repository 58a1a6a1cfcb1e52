//! The same for readers, writers and permits: their windows are judged.

use std::time::{Duration, Instant};

use lock_runtime::LockMode;
use lock_tests::any_lock::permits;
use lock_tests::nemesis::{self, Nemesis};
use lock_tests::redis::RedisOptions;
use lock_tests::workers::{Plan, Workers};
use lock_tests::{AnyLock, RegisterServer, Rng, eventually};

use super::cluster::Cluster;
use super::{AROUND, LONGEST};
use crate::common::{BOUND, Raw, Server, connected};

const NAMES: [&str; 3] = ["rw", "permits", "{rw}"];

#[test]
fn nothing_breaks_for_readers_and_permits_under_random_faults() {
    nemesis::for_each_seed(8, AROUND, survive);
}

async fn survive(seed: u64, length: Duration) {
    let Some(server) = RedisOptions::default().persistent().start() else {
        return;
    };
    let register = RegisterServer::start().await;
    let mut rng = Rng::new(seed);
    let prefix = rng.one_of(&["storm:", "", "{storm}"]);
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_lock-probe").into(),
        url: format!("redis://127.0.0.1:PORT?key_prefix={prefix}&lease=LEASE"),
        names: NAMES.map(str::to_owned).to_vec(),
        register_port: register.port(),
        command: "contend-modes",
    };
    let mut workers = Workers::spawn(server.port(), plan, rng.number()).await;
    let mut cluster = Cluster {
        server,
        nemesis: Nemesis::new(rng),
        counter: format!("{prefix}lk1:fence"),
    };
    let start = Instant::now();
    while start.elapsed() < length {
        cluster.inject(&mut workers).await;
    }
    cluster.nemesis.clear(&mut workers);
    let windows = workers.windows.clone();
    let (_, refused_to_holders) = workers.finish().await;

    let Cluster {
        server,
        nemesis,
        counter,
    } = cluster;
    let server = Server::of(server).await;
    let seen = windows.check();
    nemesis::report_modes(seed, &seen, register.register(), &nemesis);
    assert!(
        refused_to_holders.is_empty(),
        "holders were refused: {refused_to_holders:?}"
    );
    nemesis::assert_progress_of_modes(&seen, 8, &nemesis);
    calm_again(&server, prefix).await;
    nothing_is_left(&server.raw, &counter).await;
}

/// Everybody is gone. What they could not give back ends with its lease, and whoever comes next
/// clears it away.
async fn calm_again(server: &Server, prefix: &str) {
    let provider = connected(server.builder().key_prefix(prefix)).await;
    let began = Instant::now();
    for name in NAMES {
        for mode in [
            LockMode::Write,
            LockMode::Read,
            permits(4, 4),
            permits(1, 4),
        ] {
            let is_semaphore = matches!(mode, LockMode::Permits { .. });
            if is_semaphore == (name == "permits") {
                let lock = AnyLock::on(mode, provider.clone(), name);
                let held = lock.acquire_for(LONGEST * 2 + BOUND).await;
                held.expect("everybody is gone").release().await.unwrap();
            }
        }
    }
    // The rest is the machine's.
    assert!(began.elapsed() < LONGEST * 2, "{:?}", began.elapsed());
}

async fn nothing_is_left(raw: &Raw, counter: &str) {
    eventually(
        "only the counter is left",
        LONGEST * 2 + BOUND,
        async || {
            let keys: Vec<String> = raw.ask("KEYS *").await;
            keys == [counter]
        },
    )
    .await;
}
