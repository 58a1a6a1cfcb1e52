//! Everything at once: processes contend for a few locks while the network, the server and the
//! processes themselves fail. Afterwards an overlap checker and a fenced register judge.
//!
//! `LOCK_STORM_SECONDS` says for how long each storm goes on (12), `LOCK_STORM_SEEDS` how many
//! there are (1), `LOCK_STORM_SEED` the seed of the first (1). A seed repeats the choices, though
//! not the timing.

mod weather;

use std::time::{Duration, Instant};

use lock_tests::crew::{Crew, Orders};
use lock_tests::{History, Seeded, ServedRegister, ZooKeeperServer, eventually};

use crate::common::{BOUND, Place, take};
use weather::Weather;

const NAMES: [&str; 3] = ["anchor", "bridge", "cargo"];
const LEASE: Duration = Duration::from_secs(2);
/// What a storm may take besides its own time.
const AROUND: Duration = Duration::from_secs(90);

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
    let length = Duration::from_secs(from_environment("LOCK_STORM_SECONDS", 12));
    let first = from_environment("LOCK_STORM_SEED", 1);
    for seed in first..first + from_environment("LOCK_STORM_SEEDS", 1) {
        lock_tests::run(length + AROUND, storm(seed, length));
    }
}

async fn storm(seed: u64, length: Duration) {
    let Some(server) = ZooKeeperServer::start() else {
        return;
    };
    let place = Place::on(server.port()).await;
    let register = ServedRegister::start().await;
    let mut seeded = Seeded::new(seed);
    let orders = Orders {
        program: env!("CARGO_BIN_EXE_lock-probe").into(),
        url: place.url("PORT", LEASE),
        names: NAMES.map(str::to_owned).to_vec(),
        register_port: register.port(),
    };
    let mut crew = Crew::sail(server.port(), orders, seeded.number()).await;
    let mut weather = Weather::over(server, seeded);

    let start = Instant::now();
    while start.elapsed() < length {
        weather.strike(&mut crew).await;
    }
    weather.clear(&mut crew).await;
    let (history, refused_to_holders) = crew.land().await;

    let register = register.register();
    println!(
        "storm {seed}: {} grants, {} changes of holder, {} writes, {} stale ones, faults {:?}",
        history.len(),
        history.changes_of_holder(),
        register.accepted(),
        register.refused(),
        weather.struck,
    );
    judge(&history, &refused_to_holders);
    assert!(weather.struck.len() >= 4, "it was a storm");
    nothing_is_left(&place).await;
    let provider = place.provider().await;
    for name in NAMES {
        take(&provider, name).await.release().await.unwrap();
    }
}

fn judge(history: &History, refused_to_holders: &[String]) {
    history.check();
    assert!(
        refused_to_holders.is_empty(),
        "holders were refused, so others had written with later tokens: {refused_to_holders:?}"
    );
    assert!(
        history.len() > 10,
        "{} grants are no progress",
        history.len()
    );
    assert!(history.changes_of_holder() > 5, "nobody contended");
}

/// Everybody is gone. What they could not give back ends with their sessions; that the server then
/// removes a lock's node, which is not ephemeral, is up to who comes next.
async fn nothing_is_left(place: &Place) {
    for name in NAMES {
        eventually("nobody queues", LEASE * 2 + BOUND, || async {
            place.children(name).await.is_empty()
        })
        .await;
    }
}
