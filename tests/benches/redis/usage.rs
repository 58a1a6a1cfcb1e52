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
