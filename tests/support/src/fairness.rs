//! Measures how processes share locks that they contend for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, LockProvider};
use tokio::task::JoinSet;

const TASKS_A_NAME: usize = 2;
const WORK: Duration = Duration::from_millis(5);

/// Returns for how long processes contend: `LOCK_TESTS_FAIRNESS_SECONDS`, or 4 s by default.
pub fn length() -> Duration {
    let seconds = std::env::var("LOCK_TESTS_FAIRNESS_SECONDS").ok();
    let seconds = seconds.map_or(4, |seconds| seconds.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

/// Returns the time that a test of fairness may take, with so much besides.
pub fn bound(besides: Duration) -> Duration {
    besides + 4 * length()
}

/// The shares that processes had of some names.
#[derive(Debug)]
pub struct Shares {
    /// The longest wait of all.
    pub worst_wait: Duration,
    /// The sections of the process and name that had the fewest.
    pub fewest: u64,
    /// The sections of the process and name that had the most.
    pub most: u64,
    /// The number of all sections.
    pub sections: u64,
}

/// Has tasks of these providers contend for so many names. The providers are processes to each
/// other. Two tasks of each contend for a name, with 5 ms of work.
///
/// # Panics
///
/// If a lock cannot be had, or is lost.
pub async fn contend(
    providers: &[Arc<dyn LockProvider>],
    names: usize,
    length: Duration,
) -> Shares {
    let end = Instant::now() + length;
    let worst = Arc::new(AtomicU64::new(0));
    let mut counts = Vec::new();
    let mut tasks = JoinSet::new();
    for provider in providers {
        for name in 0..names {
            let count = Arc::new(AtomicU64::new(0));
            counts.push(Arc::clone(&count));
            for _ in 0..TASKS_A_NAME {
                let lock = DistributedLock::on(Arc::clone(provider), format!("{names}:{name}"));
                let (count, worst) = (Arc::clone(&count), Arc::clone(&worst));
                tasks.spawn(async move {
                    while Instant::now() < end {
                        let begun = Instant::now();
                        let guard = lock.acquire().await.expect("the server answers");
                        let waited = u64::try_from(begun.elapsed().as_micros());
                        worst.fetch_max(waited.unwrap_or(u64::MAX), Ordering::Relaxed);
                        tokio::time::sleep(WORK).await;
                        count.fetch_add(1, Ordering::Relaxed);
                        guard.release().await.expect("it was held");
                    }
                });
            }
        }
    }
    tasks.join_all().await;
    let counts: Vec<_> = counts
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .collect();
    Shares {
        worst_wait: Duration::from_micros(worst.load(Ordering::Relaxed)),
        fewest: counts.iter().copied().min().unwrap_or_default(),
        most: counts.iter().copied().max().unwrap_or_default(),
        sections: counts.iter().sum(),
    }
}

/// Checks that nobody starves. Two providers contend for 16, for 40 and for 100 names, and the test
/// prints how they shared them.
///
/// # Panics
///
/// If the worst wait with many names is more than ten times that with few.
pub async fn nobody_starves(providers: &[Arc<dyn LockProvider>]) {
    let few = contend(providers, 16, length()).await;
    println!("16 names: {few:?}");
    for names in [40, 100] {
        let many = contend(providers, names, length()).await;
        println!("{names} names: {many:?}");
        assert!(many.fewest > 0, "{many:?}");
        let longest = few.worst_wait.max(Duration::from_millis(100)) * 10;
        assert!(many.worst_wait <= longest, "{few:?}, {many:?}");
    }
}
