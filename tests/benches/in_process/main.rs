//! Measures locks inside one process, beside those of Tokio and beside other ways to lock by name.
//!
//! ```text
//! cargo bench --bench in_process
//! LOCK_BENCH_ROUNDS=101 cargo bench --bench in_process
//! ```
//!
//! Machines differ, so ratios count. Every round measures every contender once, one right after
//! another, and takes its ratio to the floor of the same round; the table shows medians.

mod locks;
mod shared;
#[path = "../table.rs"]
mod table;
mod usage;

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::DistributedLock;
use lockable::LockPool;
use tokio::task::yield_now;

use locks::{FixedName, Lock, MapOfMutexes, NameWithPlaceholder, PlainMutex};
use shared::{PlainRead, PlainSemaphore, Prepared, PreparedPermit, Reader, TakesPermit};
use table::{Row, Target};
use usage::{EightTasks, OneTask, Usage};

const ROUNDS: usize = 41;
const OPERATIONS: u64 = 80_000;
const TASKS: u64 = 8;

const NUMBER: u64 = 1_234_567;
/// The name of the prepared lock. A prepared lock keeps the library's state of its name, which
/// another contender with the same name would find ready-made.
const PREPARED: &str = "invoice:7654321";

fn main() {
    // `cargo bench` says so; `cargo test --benches` only wants to see that it runs.
    let measures = std::env::args().any(|argument| argument == "--bench");
    let (rounds, operations) = if measures {
        (ROUNDS, OPERATIONS)
    } else {
        (1, 100 * TASKS)
    };
    let rounds = match std::env::var("LOCK_BENCH_ROUNDS") {
        Ok(rounds) => rounds
            .parse()
            .expect("LOCK_BENCH_ROUNDS should be a number"),
        Err(_) => rounds,
    };

    let uncontended = Targets {
        prepared: 3.5,
        attribute: 6.0,
    };
    let contended = Targets {
        prepared: 3.0,
        attribute: 3.0,
    };
    let mut works = [
        Work::new("uncontended", uncontended, OneTask::new()),
        Work::new(
            "8 tasks, empty section",
            contended,
            EightTasks::new(|| ready(())),
        ),
        Work::new(
            "8 tasks, section yields",
            contended,
            EightTasks::new(yield_now),
        ),
        Work::of_readers("one reader", 4.0, OneTask::new()),
        Work::of_readers(
            "8 readers, empty section",
            3.0,
            EightTasks::new(|| ready(())),
        ),
        Work::of_readers("8 readers, section yields", 3.0, EightTasks::new(yield_now)),
        Work::of_permits("one permit, uncontended", 4.0, OneTask::new()),
    ];
    for _ in 0..rounds {
        for contender in works.iter_mut().flat_map(|work| &mut work.contenders) {
            let took = (contender.run)(operations);
            contender
                .row
                .samples
                .push(took.as_secs_f64() * 1e9 / operations as f64);
        }
    }
    println!("medians of {rounds} rounds, nanoseconds for one lock and unlock\n");
    table::print_header();
    for work in &works {
        table::print_rows(work.title, work.contenders.iter().map(|it| &it.row));
    }
}

/// Some use of a lock, and the contenders that compete in it. The first contender is the floor.
struct Work {
    title: &'static str,
    contenders: Vec<Contender>,
}

/// The largest ratios to the floor that this project allows itself.
#[derive(Clone, Copy)]
struct Targets {
    prepared: f64,
    attribute: f64,
}

struct Contender {
    run: Box<dyn Fn(u64) -> Duration>,
    /// The nanoseconds that an operation takes.
    row: Row,
}

impl Work {
    fn new(title: &'static str, targets: Targets, usage: impl Usage) -> Self {
        let usage = Arc::new(usage);
        let contenders = vec![
            contender(&usage, "tokio::sync::Mutex", None, PlainMutex::default()),
            contender(
                &usage,
                "DistributedLock, prepared",
                Some(targets.prepared),
                DistributedLock::new(PREPARED),
            ),
            contender(
                &usage,
                "attribute, fixed name",
                Some(targets.attribute),
                FixedName,
            ),
            contender(
                &usage,
                "attribute, placeholder in name",
                Some(targets.attribute),
                NameWithPlaceholder(NUMBER),
            ),
            contender(
                &usage,
                "lockable, fixed name",
                None,
                LockPool::<&'static str>::new(),
            ),
            contender(
                &usage,
                "lockable, name made at each call",
                None,
                LockPool::<String>::new(),
            ),
            contender(
                &usage,
                "map of mutexes, never emptied",
                None,
                MapOfMutexes::default(),
            ),
        ];
        Self { title, contenders }
    }

    /// Readers of one name, whose prepared lock may take so many times as long as the floor.
    fn of_readers(title: &'static str, target: f64, usage: impl Usage) -> Self {
        let usage = Arc::new(usage);
        let contenders = vec![
            contender(
                &usage,
                "tokio::sync::RwLock, read",
                None,
                PlainRead::default(),
            ),
            contender(
                &usage,
                "DistributedRwLock, read",
                Some(target),
                Prepared::new(),
            ),
            contender(&usage, "attribute, mode = \"read\"", None, Reader),
        ];
        Self { title, contenders }
    }

    /// Those who take one permit each.
    fn of_permits(title: &'static str, target: f64, usage: impl Usage) -> Self {
        let usage = Arc::new(usage);
        let contenders = vec![
            contender(
                &usage,
                "tokio::sync::Semaphore",
                None,
                PlainSemaphore::new(),
            ),
            contender(
                &usage,
                "DistributedSemaphore",
                Some(target),
                PreparedPermit::new(),
            ),
            contender(&usage, "attribute, permits", None, TakesPermit),
        ];
        Self { title, contenders }
    }
}

fn contender<U: Usage, L: Lock>(
    usage: &Arc<U>,
    what: &'static str,
    target: Option<f64>,
    lock: L,
) -> Contender {
    let (usage, lock) = (Arc::clone(usage), Arc::new(lock));
    Contender {
        run: Box::new(move |operations| usage.run(&lock, operations)),
        row: Row::new(what, target.map(Target::RatioAtMost)),
    }
}
