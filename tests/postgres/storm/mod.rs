//! Everything at once: processes contend for a few locks while the network, the server and the
//! processes themselves fail. Afterwards an overlap checker and a fenced register judge.
//!
//! There are two. In the first, everything fails but no session ends at once while its holder goes
//! on, and nothing may overlap. In the second, sessions are ended under their holders, who can only
//! know it when they hear of it: that must be soon, and long before their leases end.
//!
//! The environment says for how long (8 seconds), how often and with which seeds: see
//! [`lock_tests::storm`].

mod weather;

use std::time::{Duration, Instant};

use lock_tests::postgres::PostgresOptions;
use lock_tests::storm::{self, Weather};
use lock_tests::workers::{Plan, Workers};
use lock_tests::{History, Seeded, ServedRegister, eventually};

use crate::common::{BOUND, Server, connected, take};
use weather::{Blow, SLOW, SUDDEN, Sea};

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

fn all_of(storm: Storm) {
    storm::for_each_seed(8, AROUND, move |seed, length| storm.rage(seed, length));
}

impl Storm {
    async fn rage(self, seed: u64, length: Duration) {
        let Some(process) = PostgresOptions::default().start() else {
            return;
        };
        let register = ServedRegister::start().await;
        let mut seeded = Seeded::new(seed);
        let lease = self.lease.as_millis();
        let plan = Plan {
            program: env!("CARGO_BIN_EXE_lock-probe").into(),
            url: format!("postgres://app@127.0.0.1:PORT/postgres?lease={lease}ms"),
            names: NAMES.map(str::to_owned).to_vec(),
            register_port: register.port(),
        };
        let mut workers = Workers::spawn(process.port(), plan, seeded.number()).await;
        let mut sea = Sea {
            server: process,
            weather: Weather::new(seeded),
            blows: self.blows,
        };

        let start = Instant::now();
        while start.elapsed() < length {
            sea.strike(&mut workers).await;
        }
        sea.clear(&mut workers).await;
        let (history, refused_to_holders) = workers.finish().await;

        let Sea {
            server: process,
            weather,
            ..
        } = sea;
        let server = Server::of(process).await;
        storm::tell(seed, &history, register.register(), &weather);
        self.judge(&history, &refused_to_holders);
        storm::was_one(&history, 20, &weather);
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
    }
}
