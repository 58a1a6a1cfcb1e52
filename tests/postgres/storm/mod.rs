//! Everything at once: processes contend for a few locks while the network, the server and the
//! processes themselves fail. Afterwards an overlap checker and a fenced register judge.
//!
//! There are two. In the first, everything fails but no session ends at once while its holder goes
//! on, and nothing may overlap. In the second, sessions are ended under their holders, who can only
//! know it when they hear of it: that must be soon, and long before their leases end.
//!
//! `LOCK_STORM_SECONDS` says for how long each storm goes on (8), `LOCK_STORM_SEEDS` how many
//! there are (1), `LOCK_STORM_SEED` the seed of the first (1). A seed repeats the choices, though
//! not the timing.

mod weather;

use std::time::{Duration, Instant};

use lock_tests::crew::{Crew, Orders};
use lock_tests::postgres::PostgresOptions;
use lock_tests::{History, Seeded, ServedRegister, eventually};

use crate::common::{BOUND, Server, connected, take};
use weather::{Blow, SLOW, SUDDEN, Weather};

const NAMES: [&str; 3] = ["anchor", "bridge", "customer-order:4711"];
/// What a storm may take besides its own time.
const AROUND: Duration = Duration::from_secs(60);

/// What fails, and how soon a holder knows.
#[derive(Clone, Copy)]
struct Storm {
    blows: &'static [Blow],
    lease: Duration,
    notice: Duration,
}

#[test]
fn nothing_overlaps_in_a_storm() {
    all_of(Storm {
        blows: &SLOW,
        lease: Duration::from_secs(1),
        notice: Duration::ZERO,
    });
}

#[test]
fn sessions_that_end_in_a_storm_are_missed_soon() {
    all_of(Storm {
        blows: &SUDDEN,
        lease: Duration::from_secs(20),
        notice: Duration::from_secs(1),
    });
}

fn from_environment(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => default,
    }
}

fn all_of(storm: Storm) {
    let length = Duration::from_secs(from_environment("LOCK_STORM_SECONDS", 8));
    let first = from_environment("LOCK_STORM_SEED", 1);
    for seed in first..first + from_environment("LOCK_STORM_SEEDS", 1) {
        lock_tests::run(length + AROUND, storm.rage(seed, length));
    }
}

impl Storm {
    async fn rage(self, seed: u64, length: Duration) {
        let Some(process) = PostgresOptions::default().start() else {
            return;
        };
        let register = ServedRegister::start().await;
        let mut seeded = Seeded::new(seed);
        let lease = self.lease.as_millis();
        let orders = Orders {
            program: env!("CARGO_BIN_EXE_lock-probe").into(),
            url: format!("postgres://app@127.0.0.1:PORT/postgres?lease={lease}ms"),
            names: NAMES.map(str::to_owned).to_vec(),
            register_port: register.port(),
        };
        let mut crew = Crew::sail(process.port(), orders, seeded.number()).await;
        let mut weather = Weather::over(process, self.blows, seeded);

        let start = Instant::now();
        while start.elapsed() < length {
            weather.strike(&mut crew).await;
        }
        weather.clear(&mut crew).await;
        let (history, refused_to_holders) = crew.land().await;

        let Weather {
            server: process,
            struck,
            ..
        } = weather;
        let server = Server::of(process).await;
        let register = register.register();
        println!(
            "storm {seed}: {} grants, {} changes of holder, {} writes, {} stale ones, faults {struck:?}",
            history.len(),
            history.changes_of_holder(),
            register.accepted(),
            register.refused(),
        );
        self.judge(&history, &refused_to_holders);
        assert!(struck.len() >= 4, "it was a storm: {struck:?}");
        // Everybody is gone. What they could not give back ends with its lease.
        server.until_free(self.lease + BOUND).await;
        eventually("no session is left", self.lease + BOUND, || async {
            server.sessions().await == 0
        })
        .await;
        let provider = connected(server.builder()).await;
        for name in NAMES {
            take(&provider, name).await.release().await.unwrap();
        }
    }

    fn judge(&self, history: &History, refused_to_holders: &[String]) {
        history.check_but_for(self.notice);
        for line in refused_to_holders {
            let [_, name, token, at] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("a process said: {line}");
            };
            let [token, at]: [u64; 2] = [token, at].map(|number| number.parse().unwrap());
            // Whoever wrote later may have been killed before it could tell.
            let next = history.next_after(name, token).unwrap_or(at);
            let late = Duration::from_nanos(at.saturating_sub(next));
            assert!(
                !self.notice.is_zero() && late <= self.notice,
                "a holder was refused, so another had written with a later token: {line}"
            );
        }
        assert!(
            history.len() > 20,
            "{} grants are no progress",
            history.len()
        );
        assert!(history.changes_of_holder() > 5, "nobody contended");
    }
}
