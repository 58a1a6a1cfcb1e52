//! Everything at once: processes contend for a few locks while the network, the server and the
//! processes themselves fail. Afterwards an overlap checker and a fenced register judge.
//!
//! `LOCK_STORM_SECONDS` says for how long each storm goes on (8), `LOCK_STORM_SEEDS` how many
//! there are (1), `LOCK_STORM_SEED` the seed of the first (1). A seed repeats the choices, though
//! not the timing.

mod weather;

use std::time::{Duration, Instant};

use lock_tests::crew::{Crew, LEASES, Orders};
use lock_tests::redis::RedisOptions;
use lock_tests::{History, Seeded, ServedRegister, eventually};

use crate::common::{BOUND, Raw, Server, connected, take};
use weather::Weather;

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

fn from_environment(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => default,
    }
}

#[test]
fn nothing_is_broken_by_a_storm() {
    let length = Duration::from_secs(from_environment("LOCK_STORM_SECONDS", 8));
    let first = from_environment("LOCK_STORM_SEED", 1);
    for seed in first..first + from_environment("LOCK_STORM_SEEDS", 1) {
        lock_tests::run(length + AROUND, storm(seed, length));
    }
}

async fn storm(seed: u64, length: Duration) {
    // What a server has answered it still knows after a restart; without that, two can hold a lock.
    let Some(server) = RedisOptions::default().persistent().start() else {
        return;
    };
    let register = ServedRegister::start().await;
    let mut seeded = Seeded::new(seed);
    let locks = Locks::any(&mut seeded);
    let prefix = locks.prefix;
    let orders = Orders {
        program: env!("CARGO_BIN_EXE_lock-probe").into(),
        url: format!("redis://127.0.0.1:PORT?key_prefix={prefix}&lease=LEASE"),
        names: locks.names.map(str::to_owned).to_vec(),
        register_port: register.port(),
    };
    let mut crew = Crew::sail(server.port(), orders, seeded.number()).await;
    let mut weather = Weather::over(server, locks.counter(), seeded);

    let start = Instant::now();
    while start.elapsed() < length {
        weather.strike(&mut crew).await;
    }
    weather.clear(&mut crew).await;
    let (history, refused_to_holders) = crew.land().await;

    let Weather { server, struck, .. } = weather;
    let server = Server::of(server).await;
    let register = register.register();
    println!(
        "storm {seed} over {:?}: {} grants, {} changes of holder, {} writes, {} stale ones, faults {struck:?}",
        locks.names.map(|name| format!("{}{name}", locks.prefix)),
        history.len(),
        history.changes_of_holder(),
        register.accepted(),
        register.refused(),
    );
    judge(&history, &refused_to_holders);
    assert!(struck.len() >= 4, "it was a storm: {struck:?}");
    nothing_is_left(&server.raw, locks).await;
    calm_again(&server, locks).await;
}

fn judge(history: &History, refused_to_holders: &[String]) {
    history.check();
    assert!(
        refused_to_holders.is_empty(),
        "holders were refused, so others had written with later tokens: {refused_to_holders:?}"
    );
    assert!(
        history.len() > 20,
        "{} grants are no progress",
        history.len()
    );
    assert!(history.changes_of_holder() > 5, "nobody contended");
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
