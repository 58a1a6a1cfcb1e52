//! Measures a lock on Redis, beside the raw commands that any lock needs and beside other crates.
//!
//! ```text
//! cargo bench --bench redis --features redis
//! LOCK_BENCH_ROUNDS=21 LOCK_BENCH_LEASE=30 cargo bench --bench redis --features redis
//! cargo bench --bench redis --features redis -- hand-over 'one name'
//! ```
//!
//! The bench starts a server of its own. Machines differ, so ratios count. Every round measures
//! every contender once, one right after another, and takes its ratio to the first one of the same
//! work; the table shows medians. A contender that polls for one name is measured with the pause
//! that suits it best, which the bench finds before. The link between two machines is a process that
//! delays what it passes on, for every contender the same. At the end processes of their own hold many
//! leases for three times `LOCK_BENCH_LEASE` seconds. Arguments are parts of the titles to measure,
//! instead of all.

mod bench;
#[path = "../child.rs"]
mod child;
mod leases;
#[path = "../lock.rs"]
mod lock;
mod locks;
mod process;
mod raw;
mod shared;
mod sharing;
#[path = "../started.rs"]
mod started;
#[path = "../table.rs"]
mod table;
mod usage;
mod works;

use std::process::ExitCode;
use std::time::Duration;

use lock_tests::RedisServer;

use bench::Bench;

/// The title of what is measured last.
const LEASES: &str = "leases";

/// The amount that is measured.
pub(crate) struct Scale {
    rounds: usize,
    operations: u64,
    operations_over_link: u64,
    /// The acquisitions of the task that takes its lock now and then.
    lone: u64,
    hand_overs: u64,
    /// The sections of each task that competes.
    sections: u64,
    /// The time for which the work is repeated at least.
    window: Duration,
    /// The time for which some read without a pause.
    reading: Duration,
    /// The pauses that are tried with every contender that polls.
    pauses_in_ms: &'static [u64],
    leases: u64,
    lease: Duration,
}

impl Scale {
    /// Measures enough for figures.
    fn full() -> Self {
        let number = |variable: &str, default| match std::env::var(variable) {
            Ok(number) => number
                .parse()
                .unwrap_or_else(|_| panic!("{variable} should be a number")),
            Err(_) => default,
        };
        Self {
            rounds: number("LOCK_BENCH_ROUNDS", 9) as usize,
            operations: 2_000,
            operations_over_link: 60,
            lone: 250,
            hand_overs: 40,
            sections: 10,
            window: Duration::from_millis(200),
            reading: Duration::from_secs(1),
            pauses_in_ms: &[1, 2, 5, 10, 20, 50, 100],
            leases: 10_000,
            lease: Duration::from_secs(number("LOCK_BENCH_LEASE", 10)),
        }
    }

    /// Measures enough to see that the bench runs.
    fn quick() -> Self {
        Self {
            rounds: 1,
            operations: 64,
            operations_over_link: 8,
            lone: 10,
            hand_overs: 3,
            sections: 2,
            window: Duration::from_millis(1),
            reading: Duration::from_millis(60),
            pauses_in_ms: &[5],
            leases: 100,
            lease: Duration::from_secs(1),
        }
    }
}

fn main() -> ExitCode {
    let runtime = started::runtime();
    if let Some(code) = process::serve(&runtime) {
        return code;
    }
    let Some(server) = RedisServer::start_plain() else {
        return started::without_server();
    };
    let scale = if started::measures() {
        Scale::full()
    } else {
        Scale::quick()
    };
    run(Bench::start(runtime, &server, scale));
    ExitCode::SUCCESS
}

fn run(mut bench: Bench) {
    let mut works = works::all();
    works.retain(|work| started::wants(&work.title));
    for work in &mut works {
        work.find_best(&mut bench);
    }
    for _ in 0..bench.scale.rounds {
        for work in &mut works {
            work.measure(&mut bench);
        }
    }
    println!("medians of {} rounds\n", bench.scale.rounds);
    table::print_header();
    for work in &works {
        table::print_rows(&work.title, work.rows());
    }
    if started::wants(LEASES) {
        let Scale { leases, lease, .. } = bench.scale;
        println!("{leases} {LEASES} of {lease:?}, held for three times that, once\n");
        for (title, rows) in bench.leases() {
            table::print_rows(title, &rows);
        }
    }
}
