//! Measures how processes share locks that they contend for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, LockProvider};
use tokio::task::JoinSet;

use crate::Probe;

const PROCESSES: usize = 2;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Shares {
    /// Writes the numbers as a line, which `parse` reads.
    pub fn line(self) -> String {
        let Self {
            worst_wait,
            fewest,
            most,
            sections,
        } = self;
        format!("{} {fewest} {most} {sections}", worst_wait.as_micros())
    }

    fn parse(words: &[String]) -> Self {
        let number = |at: usize| words[at].parse().expect("a number");
        Self {
            worst_wait: Duration::from_micros(number(0)),
            fewest: number(1),
            most: number(2),
            sections: number(3),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            worst_wait: self.worst_wait.max(other.worst_wait),
            fewest: self.fewest.min(other.fewest),
            most: self.most.max(other.most),
            sections: self.sections + other.sections,
        }
    }
}

/// Has tasks of this process contend for so many names, with others of their kind. Two tasks
/// contend for a name, with 5 ms of work.
///
/// # Panics
///
/// If a lock cannot be had, or is lost.
pub async fn contend(provider: &Arc<dyn LockProvider>, names: usize, length: Duration) -> Shares {
    let end = Instant::now() + length;
    let worst = Arc::new(AtomicU64::new(0));
    let mut counts = Vec::new();
    let mut tasks = JoinSet::new();
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

/// Checks that nobody starves. Two processes, of the program `lock-probe`, contend for 16, for 40
/// and for 100 names, and the test prints how they shared them.
///
/// # Panics
///
/// If the worst wait with many names is more than ten times that with few.
pub async fn nobody_starves(program: &Path, url: &str) {
    let mut processes = [(); PROCESSES].map(|()| Probe::start(program, url, "order"));
    let mut few = None;
    for names in [16, 40, 100] {
        for process in &mut processes {
            process.tell(&format!("share {names} {}", length().as_millis()));
        }
        let mut shares = Vec::new();
        for process in &mut processes {
            let shared = process.expect("shared", bound(length())).await;
            shares.push(Shares::parse(&shared[1..]));
        }
        let many = shares.into_iter().reduce(Shares::and).expect("processes");
        println!("{names} names: {many:?}");
        assert!(many.fewest > 0, "{many:?}");
        let few = *few.get_or_insert(many);
        let longest = few.worst_wait.max(Duration::from_millis(100)) * 10;
        assert!(many.worst_wait <= longest, "{few:?}, {many:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_they_are_written_and_put_together() {
        let shares = |worst, fewest, most, sections| Shares {
            worst_wait: Duration::from_micros(worst),
            fewest,
            most,
            sections,
        };
        let (one, other) = (shares(7, 3, 9, 20), shares(8, 2, 5, 12));
        let words: Vec<_> = one.line().split(' ').map(str::to_owned).collect();
        assert_eq!(Shares::parse(&words), one);
        assert_eq!(one.and(other), shares(8, 2, 9, 32));
    }
}
