//! Everything at once: processes contend for a few locks while the network, the server and the
//! processes themselves fail. Afterwards an overlap checker and a fenced register judge.
//!
//! The environment says for how long (12 seconds), how often and with which seeds: see
//! [`lock_tests::storm`].

mod weather;

use std::time::{Duration, Instant};

use lock_tests::storm::{self, Weather};
use lock_tests::workers::{Plan, Workers};
use lock_tests::{Seeded, ServedRegister, ZooKeeperServer, eventually};

use crate::common::{BOUND, Place, take};
use weather::Sea;

const NAMES: [&str; 3] = ["anchor", "bridge", "cargo"];
const LEASE: Duration = Duration::from_secs(2);
/// What a storm may take besides its own time.
const AROUND: Duration = Duration::from_secs(90);

#[test]
fn nothing_is_broken_by_a_storm() {
    storm::for_each_seed(12, AROUND, rage);
}

async fn rage(seed: u64, length: Duration) {
    let Some(server) = ZooKeeperServer::start() else {
        return;
    };
    let place = Place::on(server.port()).await;
    let register = ServedRegister::start().await;
    let mut seeded = Seeded::new(seed);
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_lock-probe").into(),
        url: place.url("PORT", LEASE),
        names: NAMES.map(str::to_owned).to_vec(),
        register_port: register.port(),
    };
    let mut workers = Workers::spawn(server.port(), plan, seeded.number()).await;
    let mut sea = Sea {
        server,
        weather: Weather::new(seeded),
    };

    let start = Instant::now();
    while start.elapsed() < length {
        sea.strike(&mut workers).await;
    }
    sea.weather.clear(&mut workers);
    let (history, refused_to_holders) = workers.finish().await;

    storm::tell(seed, &history, register.register(), &sea.weather);
    storm::broke_nothing(&history, &refused_to_holders);
    storm::was_one(&history, 10, &sea.weather);
    nothing_is_left(&place).await;
    let provider = place.provider().await;
    for name in NAMES {
        take(&provider, name).await.release().await.unwrap();
    }
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
