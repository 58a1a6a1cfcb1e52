//! The kinds of work, the contenders in each, and what this project demands of itself.

use std::time::Duration;

use lock_tests::{Rng, boot_nanos};
use tokio::runtime::Runtime;

use crate::child::Process;
use crate::kinds::{Clients, Kind};
use crate::servers::Urls;
use crate::table::{self, Row, Target, median};

/// The time for which the lock is held at least before a hand-over, until the waiter waits.
const QUIET: Duration = Duration::from_millis(20);

/// The amount that is measured.
pub(crate) struct Scale {
    rounds: usize,
    hand_overs: u32,
    /// The time for which the work is repeated at least.
    window: Duration,
}

impl Scale {
    /// Measures enough for figures.
    pub(crate) fn full() -> Self {
        let rounds = match std::env::var("LOCK_BENCH_ROUNDS") {
            Ok(number) => number.parse().expect("LOCK_BENCH_ROUNDS is a number"),
            Err(_) => 7,
        };
        Self {
            rounds,
            hand_overs: 40,
            window: Duration::from_millis(500),
        }
    }

    /// Measures enough to see that the bench runs.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 1,
            hand_overs: 2,
            window: Duration::from_millis(1),
        }
    }
}

/// The contenders on one provider; the first one is what the others are compared with.
struct Group {
    provider: &'static str,
    kinds: &'static [Kind],
    target: Option<Target>,
}

const TARGET: Option<Target> = Some(Target::RatioAtLeast(0.8));

const GROUPS: [Group; 6] = [
    Group {
        provider: "file",
        kinds: &[Kind::RawFile, Kind::File],
        // No round trip, so nothing to compare it with.
        target: None,
    },
    Group {
        provider: "redis",
        kinds: &[Kind::RawRedis, Kind::Redis],
        target: TARGET,
    },
    Group {
        provider: "postgres",
        kinds: &[
            Kind::RawPostgresTokens,
            Kind::RawPostgres,
            Kind::Postgres,
            Kind::Sqlx,
            Kind::DistributedLock,
        ],
        target: TARGET,
    },
    Group {
        provider: "postgres, reads",
        kinds: &[Kind::RawPostgresShared, Kind::PostgresRead],
        target: TARGET,
    },
    Group {
        provider: "postgres, permits",
        kinds: &[Kind::RawPostgres, Kind::PostgresPermit],
        target: Some(Target::RatioAtLeast(0.7)),
    },
    Group {
        provider: "zookeeper",
        kinds: &[
            Kind::RawZooKeeper,
            Kind::ZooKeeper,
            Kind::ZooKeeperRead,
            Kind::ZooKeeperPermit,
        ],
        target: TARGET,
    },
];

const OURS: [Kind; 8] = [
    Kind::File,
    Kind::Redis,
    Kind::Postgres,
    Kind::PostgresRead,
    Kind::PostgresPermit,
    Kind::ZooKeeper,
    Kind::ZooKeeperRead,
    Kind::ZooKeeperPermit,
];
/// The contenders that can wait for a lock.
const WAIT: [Kind; 7] = [
    Kind::File,
    Kind::Redis,
    Kind::Postgres,
    Kind::PostgresPermit,
    Kind::Sqlx,
    Kind::DistributedLock,
    Kind::ZooKeeper,
];

pub(crate) struct Bench {
    runtime: Runtime,
    clients: Clients,
    other: Process,
    scale: Scale,
    last_number: u64,
    rng: Rng,
}

impl Bench {
    pub(crate) fn start(runtime: Runtime, urls: Urls, scale: Scale) -> Self {
        Self {
            runtime,
            other: Process::start(&urls.to_string()),
            clients: Clients::new(urls),
            scale,
            last_number: 0,
            rng: Rng::new(boot_nanos()),
        }
    }

    pub(crate) fn run(mut self, wanted: impl Fn(&str) -> bool) {
        let mut works: Vec<_> = GROUPS
            .iter()
            .filter_map(|group| {
                let title = format!("{}, sections/s", group.provider);
                let rows = group.kinds.iter().map(|kind| {
                    let target = match kind {
                        // It needs fewer flights than the raw operations.
                        Kind::ZooKeeperRead => Some(Target::RatioAtLeast(1.2)),
                        _ => group.target.filter(|_| OURS.contains(kind)),
                    };
                    (*kind, Row::new(kind.what(), target))
                });
                wanted(&title).then(|| (title, rows.collect::<Vec<_>>()))
            })
            .collect();
        let hand_over = "hand-over between processes, µs";
        let mut hand_overs: Vec<(Kind, Row, Vec<f64>)> = Vec::new();
        if wanted(hand_over) {
            let rows = WAIT.map(|kind| (kind, Row::new(kind.what(), None), Vec::new()));
            hand_overs.extend(rows);
        }
        for _ in 0..self.scale.rounds {
            for (kind, row) in works.iter_mut().flat_map(|(_, rows)| rows) {
                row.samples.push(self.alone(*kind));
            }
            for (kind, p50, all) in &mut hand_overs {
                let times = self.hand_overs(*kind);
                p50.samples.push(median(times.iter().copied()));
                all.extend(times);
            }
        }
        println!("medians of {} rounds\n", self.scale.rounds);
        table::print_header();
        for (title, rows) in &works {
            table::print_rows(title, rows.iter().map(|(_, row)| row));
        }
        for (_, p50, mut all) in hand_overs {
            all.sort_by(f64::total_cmp);
            let p99 = all[(all.len() * 99).div_ceil(100) - 1];
            let mut last = Row::new(format!("{}, p99 of {}", p50.what, all.len()), None);
            last.samples.push(p99);
            table::print_rows(hand_over, [&p50, &last]);
        }
    }

    fn alone(&mut self, kind: Kind) -> f64 {
        let number = self.next_number();
        let rate = self.clients.rate(kind, number, self.scale.window);
        self.runtime.block_on(rate)
    }

    /// Measures the time from the beginning of a release to the moment when a waiter in another
    /// process has the lock.
    fn hand_overs(&mut self, kind: Kind) -> Vec<f64> {
        let mut times = Vec::new();
        for at in 0..=self.scale.hand_overs {
            let number = self.next_number();
            // What looks now and then is met at any moment of its pause.
            let quiet = self.rng.within(0..QUIET.as_nanos() as u64);
            let quiet = QUIET + Duration::from_nanos(quiet);
            let other = &mut self.other;
            let held = self.clients.hold(kind, number, async {
                other.tell(&[&kind.name(), &number]);
                tokio::time::sleep(quiet).await;
            });
            let from = self.runtime.block_on(held);
            let until = self.other.answer()[0];
            // The first one connects.
            if at > 0 {
                times.push((until - from as f64) / 1e3);
            }
        }
        times
    }

    /// Returns the number of a name that was not used before.
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}
