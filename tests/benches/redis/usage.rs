//! The work that the contenders do inside one process.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lock_tests::boot_nanos;
use tokio::task::JoinSet;

use crate::lock::Lock;
use crate::locks::Usage;

/// Every task takes its lock so many times. The answer is how long all of them took.
pub(crate) struct Repeat(pub(crate) u64);

impl Usage for Repeat {
    type Outcome = Duration;

    async fn run<L: Lock>(self, locks: Vec<L>) -> Duration {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for mut lock in locks {
            tasks.spawn(async move {
                for _ in 0..self.0 {
                    lock.with(ready(())).await;
                }
            });
        }
        tasks.join_all().await;
        began.elapsed()
    }
}

/// Every task takes the one lock so many times. The answer is how long all of them took.
///
/// The number of sections is given and not a span of time. In a span, a contender that polls would
/// do most if one task kept the lock to itself while the others pause.
pub(crate) struct Crowd(pub(crate) u64);

impl Usage for Crowd {
    type Outcome = Duration;

    async fn run<L: Lock>(self, locks: Vec<L>) -> Duration {
        let busy = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for mut lock in locks {
            let busy = Arc::clone(&busy);
            tasks.spawn(async move {
                for _ in 0..self.0 {
                    lock.with(async {
                        assert!(!busy.swap(true, Ordering::Relaxed), "two hold the lock");
                        busy.store(false, Ordering::Relaxed);
                    })
                    .await;
                }
            });
        }
        tasks.join_all().await;
        began.elapsed()
    }
}

/// Takes the one lock, holds it for as long as the future takes, and answers with the moment when
/// it was acquired and the one when its release began.
pub(crate) struct Hold<F>(pub(crate) F);

impl<F: Future<Output = ()> + Send> Usage for Hold<F> {
    type Outcome = (u64, u64);

    async fn run<L: Lock>(self, mut locks: Vec<L>) -> (u64, u64) {
        let mut times = (0, 0);
        let section = async {
            times.0 = boot_nanos();
            self.0.await;
            times.1 = boot_nanos();
        };
        locks[0].with(section).await;
        times
    }
}

/// Every task but the last takes its lock all the time. The last one takes its own every
/// millisecond, so many times. The answer is how long each time took it to acquire the lock, and to
/// acquire and release it.
pub(crate) struct Lone(pub(crate) u64);

/// The time for which the others are busy before it begins.
const BUSY_BEFORE: Duration = Duration::from_millis(20);

impl Usage for Lone {
    type Outcome = Vec<(Duration, Duration)>;

    async fn run<L: Lock>(self, mut locks: Vec<L>) -> Self::Outcome {
        let mut lone = locks.pop().expect("a lock");
        let is_over = Arc::new(AtomicBool::new(false));
        let mut busy = JoinSet::new();
        for mut lock in locks {
            let is_over = Arc::clone(&is_over);
            busy.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    lock.with(ready(())).await;
                }
            });
        }
        let lone = tokio::spawn(async move {
            tokio::time::sleep(BUSY_BEFORE).await;
            let mut times = Vec::new();
            for _ in 0..self.0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let mut acquiring = Duration::ZERO;
                let began = Instant::now();
                lone.with(async { acquiring = began.elapsed() }).await;
                times.push((acquiring, began.elapsed()));
            }
            times
        });
        let times = lone.await.expect("the server answers");
        is_over.store(true, Ordering::Relaxed);
        busy.join_all().await;
        times
    }
}
