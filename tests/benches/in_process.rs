//! Measures a lock inside one process, beside the mutex that everybody knows and beside other ways
//! to lock by name.
//!
//! ```text
//! cargo bench --bench in_process
//! LOCK_BENCH_ROUNDS=101 cargo bench --bench in_process
//! ```
//!
//! Machines differ, so ratios count. Every round measures every contender once, one right after
//! another, and takes its ratio to the floor of the same round; the table shows medians.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, LockError, distributed_lock};
use lockable::LockPool;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, unconstrained, yield_now};

mod table;

use table::{Row, Target};

const ROUNDS: usize = 41;
const OPERATIONS: u64 = 80_000;
const TASKS: u64 = 8;
const WORKERS: usize = 2;

/// A name as services use them.
const NAME: &str = "invoice:1234567";
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

/// Takes a lock that many times, and says how long all of it took.
trait Usage: 'static {
    fn run<L: Lock>(&self, lock: &Arc<L>, operations: u64) -> Duration;
}

/// One task, which has the lock to itself.
struct OneTask(Runtime);

impl OneTask {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().build();
        Self(runtime.expect("a runtime should start"))
    }
}

impl Usage for OneTask {
    fn run<L: Lock>(&self, lock: &Arc<L>, operations: u64) -> Duration {
        // Unconstrained: the scheduler's budget, which the floor spends and we do not, would send
        // the floor alone to the back of the run queue at times.
        self.0.block_on(unconstrained(async {
            let began = Instant::now();
            for _ in 0..operations {
                lock.with(ready(())).await;
            }
            began.elapsed()
        }))
    }
}

/// Eight tasks, which share two threads and one name.
struct EightTasks<S> {
    runtime: Runtime,
    section: fn() -> S,
}

impl<S> EightTasks<S> {
    fn new(section: fn() -> S) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(WORKERS).build();
        Self {
            runtime: runtime.expect("a runtime should start"),
            section,
        }
    }
}

impl<S: Future<Output = ()> + Send + 'static> Usage for EightTasks<S> {
    fn run<L: Lock>(&self, lock: &Arc<L>, operations: u64) -> Duration {
        self.runtime.block_on(async {
            let began = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..TASKS {
                let (lock, section) = (Arc::clone(lock), self.section);
                tasks.spawn(async move {
                    for _ in 0..operations / TASKS {
                        lock.with(section()).await;
                    }
                });
            }
            tasks.join_all().await;
            began.elapsed()
        })
    }
}

/// A contender: runs a section while it holds its lock.
trait Lock: Send + Sync + 'static {
    fn with(&self, section: impl Future<Output = ()> + Send) -> impl Future<Output = ()> + Send;
}

#[derive(Default)]
struct PlainMutex(tokio::sync::Mutex<()>);

impl Lock for PlainMutex {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.0.lock().await;
        section.await;
    }
}

impl Lock for DistributedLock {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.acquire().await.expect("nothing can fail in process");
        section.await;
    }
}

struct FixedName;

impl Lock for FixedName {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        #[distributed_lock(name = "invoice:1234567", timeout = "1m")]
        async fn locked(section: impl Future<Output = ()> + Send) -> Result<(), LockError> {
            section.await;
            Ok(())
        }
        locked(section).await.expect("nothing can fail in process");
    }
}

struct NameWithPlaceholder(u64);

impl Lock for NameWithPlaceholder {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        #[distributed_lock(name = "invoice:{number}", timeout = "1m")]
        async fn locked(
            number: u64,
            section: impl Future<Output = ()> + Send,
        ) -> Result<(), LockError> {
            section.await;
            Ok(())
        }
        let locked = locked(self.0, section).await;
        locked.expect("nothing can fail in process");
    }
}

impl Lock for LockPool<&'static str> {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.async_lock(NAME).await;
        section.await;
    }
}

impl Lock for LockPool<String> {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.async_lock(format!("invoice:{NUMBER}")).await;
        section.await;
    }
}

/// The map of mutexes that people write by hand. It keeps every name that was ever used.
#[derive(Default)]
struct MapOfMutexes(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Lock for MapOfMutexes {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let mutex = {
            let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(map.entry(format!("invoice:{NUMBER}")).or_default())
        };
        let _guard = mutex.lock().await;
        section.await;
    }
}
