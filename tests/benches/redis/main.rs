//! What a lock on Redis costs, beside the raw commands that any lock needs and beside other crates.
//!
//! ```text
//! cargo bench --bench redis --features redis
//! LOCK_BENCH_ROUNDS=21 LOCK_BENCH_LEASE=30 cargo bench --bench redis --features redis
//! ```
//!
//! It starts a server of its own. Machines differ, so ratios count: every round measures every
//! contender once, one right after another, and takes its ratio to the first one of the same work;
//! the table shows medians. What polls is measured with the pause that suits it best, which is
//! found out before; and with its default where that is said. At the end processes of their own
//! hold many leases for three times `LOCK_BENCH_LEASE` seconds.

mod bench;
mod leases;
mod locks;
mod process;
mod raw;
#[path = "../table.rs"]
mod table;
mod usage;

use std::process::ExitCode;
use std::time::Duration;

use lock_tests::RedisServer;
use tokio::runtime::{Builder, Runtime};

use bench::{Bench, PROCESSES, TASKS, TASKS_EACH};
use locks::{Kind, Way};
use table::{Row, Target};

/// How much is measured.
pub(crate) struct Scale {
    rounds: usize,
    operations: u64,
    hand_overs: u64,
    /// Of each task that competes.
    sections: u64,
    /// That work is repeated for at least this long.
    window: Duration,
    /// Tried with everything that polls.
    pauses_in_ms: &'static [u64],
    leases: u64,
    lease: Duration,
}

impl Scale {
    /// Enough for figures.
    fn full() -> Self {
        let number = |variable: &str, default| match std::env::var(variable) {
            Ok(number) => number
                .parse()
                .unwrap_or_else(|_| panic!("{variable} should be a number")),
            Err(_) => default,
        };
        Self {
            rounds: number("LOCK_BENCH_ROUNDS", 7) as usize,
            operations: 2_000,
            hand_overs: 60,
            sections: 10,
            window: Duration::from_millis(300),
            pauses_in_ms: &[1, 2, 5, 10, 20, 50, 100],
            leases: 10_000,
            lease: Duration::from_secs(number("LOCK_BENCH_LEASE", 10)),
        }
    }

    /// Enough to see that it runs.
    fn quick() -> Self {
        Self {
            rounds: 1,
            operations: 64,
            hand_overs: 3,
            sections: 2,
            window: Duration::from_millis(1),
            pauses_in_ms: &[5],
            leases: 100,
            lease: Duration::from_secs(1),
        }
    }
}

fn main() -> ExitCode {
    let runtime = runtime();
    if let Some(code) = process::serve(&runtime) {
        return code;
    }
    // `cargo bench` says so; `cargo test --benches` only wants to see that it runs.
    let measures = std::env::args().any(|argument| argument == "--bench");
    let Some(server) = RedisServer::start_plain() else {
        return if measures {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    };
    let scale = if measures {
        Scale::full()
    } else {
        Scale::quick()
    };
    let bench = Bench::start(runtime, &server.url(), scale);
    run(bench);
    ExitCode::SUCCESS
}

fn runtime() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime starts")
}

/// Some use of locks, and who competes in it. The first one is what the others are compared with.
struct Work {
    title: String,
    measure: fn(&mut Bench, Way) -> f64,
    contenders: Vec<(Way, Row)>,
}

impl Work {
    fn new(
        title: impl Into<String>,
        measure: fn(&mut Bench, Way) -> f64,
        contenders: impl IntoIterator<Item = (Way, Option<Target>)>,
    ) -> Self {
        let row = |(way, target): (Way, _)| (way, Row::new(way.what(), target));
        Self {
            title: title.into(),
            measure,
            contenders: contenders.into_iter().map(row).collect(),
        }
    }

    /// Names the first contender, where it is not a lock.
    fn beside(mut self, what: &str) -> Self {
        self.contenders[0].1.what = what.to_owned();
        self
    }
}

fn run(mut bench: Bench) {
    let mut works = works(&mut bench);
    for _ in 0..bench.scale.rounds {
        for work in &mut works {
            for (way, row) in &mut work.contenders {
                row.samples.push((work.measure)(&mut bench, *way));
            }
        }
    }
    println!("medians of {} rounds\n", bench.scale.rounds);
    table::print_header();
    for work in &works {
        table::print_rows(&work.title, work.contenders.iter().map(|(_, row)| row));
    }
    let (count, lease) = (bench.scale.leases, bench.scale.lease);
    println!("{count} leases of {lease:?} held by one process for three times that, once\n");
    for (title, rows) in bench.leases() {
        table::print_rows(title, &rows);
    }
}

fn works(bench: &mut Bench) -> Vec<Work> {
    let (none, least) = (None, |ratio| Some(Target::RatioAtLeast(ratio)));
    let at_most = |value| Some(Target::AtMost(value));
    let attribute = Kind::Attribute.usual();
    let prepared = Kind::Prepared.usual();
    let polling = [Kind::Rslock, Kind::AsyncRedisLock, Kind::DistributedLock];
    let usual = || polling.map(|kind| (kind.usual(), none));
    // With the pause that suits them best, rslock first.
    let mut best =
        |measure: fn(&mut Bench, Way) -> f64| polling.map(|kind| (bench.best(kind, measure), none));
    let [rslock, others @ ..] = best(Bench::tasks);
    let mut tasks = vec![rslock, (attribute, least(20.0)), (prepared, none)];
    tasks.extend(others);
    let [rslock, others @ ..] = best(Bench::processes);
    let mut processes = vec![rslock, (attribute, least(10.0)), (prepared, none)];
    processes.extend(others);
    // In the round they come after what they count.
    let requests = [(rslock.0, none), (attribute, at_most(1.0))];
    let mut hand_over = vec![
        (Kind::Raw.usual(), none),
        (attribute, Some(Target::RatioAtMost(1.5))),
        rslock,
    ];
    hand_over.extend(usual());

    let with_peers = |mut contenders: Vec<_>| {
        contenders.push((prepared, none));
        contenders.extend(usual());
        contenders
    };
    vec![
        Work::new(
            "one after another, sections/s",
            Bench::alone,
            with_peers(vec![(Kind::Raw.usual(), none), (attribute, least(0.85))]),
        ),
        Work::new(
            format!("{TASKS} tasks, a name each, sections/s"),
            Bench::apart,
            with_peers(vec![
                (Kind::RawScripts.usual(), none),
                (attribute, least(0.8)),
            ]),
        ),
        Work::new(
            "hand-over between processes, µs",
            Bench::hand_over,
            hand_over,
        )
        .beside("raw PUBLISH"),
        Work::new(
            format!("{TASKS} tasks, one name, sections/s"),
            Bench::tasks,
            tasks,
        ),
        Work::new(
            format!("{PROCESSES} × {TASKS_EACH} tasks, one name, sections/s"),
            Bench::processes,
            processes,
        ),
        Work::new("the same, requests/section", Bench::requests, requests),
    ]
}
