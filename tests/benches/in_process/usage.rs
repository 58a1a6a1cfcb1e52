//! The work that the contenders do.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, unconstrained};

use crate::TASKS;
use crate::locks::Lock;

const WORKERS: usize = 2;

/// Takes a lock that many times, and says how long all of it took.
pub(crate) trait Usage: 'static {
    fn run<L: Lock>(&self, lock: &Arc<L>, operations: u64) -> Duration;
}

/// One task, which has the lock to itself.
pub(crate) struct OneTask(Runtime);

impl OneTask {
    pub(crate) fn new() -> Self {
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
pub(crate) struct EightTasks<S> {
    runtime: Runtime,
    section: fn() -> S,
}

impl<S> EightTasks<S> {
    pub(crate) fn new(section: fn() -> S) -> Self {
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
