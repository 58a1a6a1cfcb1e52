//! Everything at once: processes contend for a few locks while the network, the server and the
//! processes themselves fail. Afterwards an overlap checker and a fenced register judge.
//!
//! The environment says for how long (8 seconds), how often and with which seeds: see
//! [`lock_tests::storm`].

mod weather;

use std::time::{Duration, Instant};

use lock_tests::redis::RedisOptions;
use lock_tests::storm::{self, Weather};
use lock_tests::workers::{LEASES, Plan, Workers};
use lock_tests::{Seeded, ServedRegister, eventually};

use crate::common::{BOUND, Raw, Server, connected, take};
use weather::Sea;

/// What is contended for, in one storm.
#[derive(Clone, Copy)]
struct Locks {
    prefix: &'static str,
    names: [&'static str; 3],
}

impl Locks {
    /// Braces decide which keys stand beside a lock, so some have them.
    fn any(seeded: &mut Seeded) -> Self {
        Self {
            prefix: seeded.one_of(&["storm:", "", "{storm}"]),
            names: seeded.one_of(&[
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
/// What a storm may take besides its own time.
const AROUND: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_broken_by_a_storm() {
    storm::for_each_seed(8, AROUND, rage);
}

async fn rage(seed: u64, length: Duration) {
    // What a server has answered it still knows after a restart; without that, two can hold a lock.
    let Some(server) = RedisOptions::default().persistent().start() else {
        return;
    };
    let register = ServedRegister::start().await;
    let mut seeded = Seeded::new(seed);
    let locks = Locks::any(&mut seeded);
    let prefix = locks.prefix;
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_lock-probe").into(),
        url: format!("redis://127.0.0.1:PORT?key_prefix={prefix}&lease=LEASE"),
        names: locks.names.map(str::to_owned).to_vec(),
        register_port: register.port(),
    };
    let mut workers = Workers::spawn(server.port(), plan, seeded.number()).await;
    let mut sea = Sea {
        server,
        weather: Weather::new(seeded),
        counter: locks.counter(),
    };

    let start = Instant::now();
    while start.elapsed() < length {
        sea.strike(&mut workers).await;
    }
    sea.weather.clear(&mut workers);
    let (history, refused_to_holders) = workers.finish().await;

    let Sea {
        server, weather, ..
    } = sea;
    let server = Server::of(server).await;
    let names = locks.names.map(|name| format!("{}{name}", locks.prefix));
    let what = format!("{seed} over {names:?}");
    storm::tell(what, &history, register.register(), &weather);
    storm::broke_nothing(&history, &refused_to_holders);
    storm::was_one(&history, 20, &weather);
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
