//! Everything at once: processes contend for a few locks while a nemesis makes the network, the
//! server and the processes themselves fail. An overlap checker and a fenced register judge them.
//!
//! It lasts 8 seconds with one seed, unless the environment says otherwise: see
//! [`lock_tests::nemesis`].

mod cluster;
mod modes;

use std::time::{Duration, Instant};

use lock_tests::nemesis::{self, Nemesis};
use lock_tests::redis::RedisOptions;
use lock_tests::workers::{LEASES, Plan, Workers};
use lock_tests::{RegisterServer, Rng, eventually};

use crate::common::{BOUND, Raw, Server, connected, take};
use cluster::Cluster;

/// The locks that the workers contend for with one seed.
#[derive(Clone, Copy)]
struct Locks {
    prefix: &'static str,
    names: [&'static str; 3],
}

impl Locks {
    /// Chooses names, some with braces, which decide the keys that stand beside a lock.
    fn any(rng: &mut Rng) -> Self {
        Self {
            prefix: rng.one_of(&["storm:", "", "{storm}"]),
            names: rng.one_of(&[
                ["anchor", "bridge", "cargo"],
                ["anchor", "{anchor}", "{{anchor}}"],
                ["anchor", "}an{ch}or{", "{}anchor"],
            ]),
        }
    }

    fn counter(&self) -> String {
        format!("{}lk1:fence", self.prefix)
    }
}

const LONGEST: Duration = LEASES[2];
/// The time that one seed may take besides the time in which faults are injected.
const AROUND: Duration = Duration::from_secs(60);

#[test]
fn nothing_breaks_under_random_faults() {
    nemesis::for_each_seed(8, AROUND, survive);
}

async fn survive(seed: u64, length: Duration) {
    // What a server has answered it still knows after a restart; without that, two can hold a lock.
    let Some(server) = RedisOptions::default().persistent().start() else {
        return;
    };
    let register = RegisterServer::start().await;
    let mut rng = Rng::new(seed);
    let locks = Locks::any(&mut rng);
    let prefix = locks.prefix;
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_lock-probe").into(),
        url: format!("redis://127.0.0.1:PORT?key_prefix={prefix}&lease=LEASE"),
        names: locks.names.map(str::to_owned).to_vec(),
        register_port: register.port(),
        command: "contend",
    };
    let mut workers = Workers::spawn(server.port(), plan, rng.number()).await;
    let mut cluster = Cluster {
        server,
        nemesis: Nemesis::new(rng),
        counter: locks.counter(),
    };

    let start = Instant::now();
    while start.elapsed() < length {
        cluster.inject(&mut workers).await;
    }
    cluster.nemesis.clear(&mut workers);
    let (history, refused_to_holders) = workers.finish().await;

    let Cluster {
        server, nemesis, ..
    } = cluster;
    let server = Server::of(server).await;
    let names = locks.names.map(|name| format!("{}{name}", locks.prefix));
    let what = format!("{seed} over {names:?}");
    nemesis::report(what, &history, register.register(), &nemesis);
    nemesis::assert_exclusive(&history, &refused_to_holders);
    nemesis::assert_progress(&history, 20, &nemesis);
    nothing_is_left(&server.raw, locks).await;
    calm_again(&server, locks).await;
}

async fn nothing_is_left(raw: &Raw, locks: Locks) {
    // Everybody is gone. What they could not give back ends with its lease.
    let ended = eventually("only the counter is left", LONGEST * 2 + BOUND, || async {
        let keys: Vec<String> = raw.ask("KEYS *").await;
        keys == [locks.counter()]
    })
    .await;
    // The rest is the machine's.
    assert!(ended < LONGEST * 2, "some keys lived for {ended:?}");
}

async fn calm_again(server: &Server, locks: Locks) {
    let provider = connected(server.builder().key_prefix(locks.prefix)).await;
    for name in locks.names {
        take(&provider, name).await.release().await.unwrap();
    }
}
