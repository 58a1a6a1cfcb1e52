//! Everything at once: processes contend for a few locks while a nemesis makes the network, the
//! server and the processes themselves fail. An overlap checker and a fenced register judge them.
//!
//! There are two scenarios. In the first, everything fails, but no session ends at once while its
//! holder goes on; nothing may overlap. In the second, sessions are ended under their holders, who
//! know it only when they hear of it: that must be soon, and long before their leases end.
//!
//! It lasts 8 seconds with one seed, unless the environment says otherwise: see
//! [`lock_tests::nemesis`].

mod cluster;
mod modes;

use std::time::{Duration, Instant};

use lock_tests::nemesis::{self, Nemesis};
use lock_tests::postgres::PostgresOptions;
use lock_tests::workers::{Plan, Workers};
use lock_tests::{History, RegisterServer, Rng, eventually};

use crate::common::{BOUND, Server, connected, take};
use cluster::{Cluster, Fault, SLOW, SUDDEN};

const NAMES: [&str; 3] = ["anchor", "bridge", "customer-order:4711"];
/// The time that one seed may take besides the time in which faults are injected.
const AROUND: Duration = Duration::from_secs(60);

/// The faults, and the time within which a holder must know that its session has ended.
#[derive(Clone, Copy)]
struct Scenario {
    faults: &'static [Fault],
    lease: Duration,
    notice: Duration,
}

#[test]
fn nothing_overlaps_under_random_faults() {
    all_seeds(Scenario {
        faults: &SLOW,
        lease: Duration::from_secs(1),
        notice: Duration::ZERO,
    });
}

#[test]
fn sessions_that_end_at_random_are_missed_soon() {
    all_seeds(Scenario {
        faults: &SUDDEN,
        lease: Duration::from_secs(20),
        notice: Duration::from_secs(1),
    });
}

fn all_seeds(scenario: Scenario) {
    nemesis::for_each_seed(8, AROUND, move |seed, length| {
        scenario.survive(seed, length)
    });
}

impl Scenario {
    async fn survive(self, seed: u64, length: Duration) {
        let Some(process) = PostgresOptions::default().start() else {
            return;
        };
        let register = RegisterServer::start().await;
        let mut rng = Rng::new(seed);
        let lease = self.lease.as_millis();
        let plan = Plan {
            program: env!("CARGO_BIN_EXE_lock-probe").into(),
            url: format!("postgres://app@127.0.0.1:PORT/postgres?lease={lease}ms"),
            names: NAMES.map(str::to_owned).to_vec(),
            register_port: register.port(),
            command: "contend",
        };
        let mut workers = Workers::spawn(process.port(), plan, rng.number()).await;
        let mut cluster = Cluster {
            server: process,
            nemesis: Nemesis::new(rng),
            faults: self.faults,
        };

        let start = Instant::now();
        while start.elapsed() < length {
            cluster.inject(&mut workers).await;
        }
        cluster.clear(&mut workers).await;
        let (history, refused_to_holders) = workers.finish().await;

        let Cluster {
            server: process,
            nemesis,
            ..
        } = cluster;
        let server = Server::of(process).await;
        nemesis::report(seed, &history, register.register(), &nemesis);
        self.judge(&history, &refused_to_holders);
        nemesis::assert_progress(&history, 20, &nemesis);
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
