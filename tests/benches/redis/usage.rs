//! The work that the contenders do inside one process.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lock_tests::boot_nanos;
use tokio::task::JoinSet;
use tokio::time::sleep;

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
pub(crate) struct Crowd {
    pub(crate) sections: u64,
    /// How many may hold it at once.
    pub(crate) at_once: u32,
    /// How long each holds it.
    pub(crate) hold: Duration,
}

impl Usage for Crowd {
    type Outcome = Duration;

    async fn run<L: Lock>(self, locks: Vec<L>) -> Duration {
        let Self {
            sections,
            at_once,
            hold,
        } = self;
        let holders = Arc::new(AtomicU32::new(0));
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for mut lock in locks {
            let holders = Arc::clone(&holders);
            tasks.spawn(async move {
                for _ in 0..sections {
                    lock.with(async {
                        let others = holders.fetch_add(1, Ordering::Relaxed);
                        assert!(others < at_once, "{others} others hold the lock");
                        if !hold.is_zero() {
                            sleep(hold).await;
                        }
                        holders.fetch_sub(1, Ordering::Relaxed);
                    })
                    .await;
                }
            });
        }
        tasks.join_all().await;
        began.elapsed()
    }
}

/// Every task holds the one lock for this long, again and again without a pause, until the time is
/// over. The answer is how often all of them held it.
pub(crate) struct Incessant {
    pub(crate) hold: Duration,
    pub(crate) time: Duration,
}

impl Usage for Incessant {
    type Outcome = u64;

    async fn run<L: Lock>(self, locks: Vec<L>) -> u64 {
        let until = Instant::now() + self.time;
        let mut tasks = JoinSet::new();
        for mut lock in locks {
            tasks.spawn(async move {
                let mut times = 0;
                while Instant::now() < until {
                    lock.with(sleep(self.hold)).await;
                    times += 1;
                }
                times
            });
        }
        tasks.join_all().await.iter().sum()
    }
}

/// Takes the one lock after each pause, until the time is over. The answer is how long each time
/// took until it was acquired.
pub(crate) struct NowAndThen {
    pub(crate) pause: Duration,
    pub(crate) time: Duration,
}

impl Usage for NowAndThen {
    type Outcome = Vec<Duration>;

    async fn run<L: Lock>(self, mut locks: Vec<L>) -> Vec<Duration> {
        let until = Instant::now() + self.time;
        let mut waits = Vec::new();
        loop {
            sleep(self.pause).await;
            if Instant::now() > until {
                return waits;
            }
            let began = Instant::now();
            let section = async { waits.push(began.elapsed()) };
            locks[0].with(section).await;
        }
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
            sleep(BUSY_BEFORE).await;
            let mut times = Vec::new();
            for _ in 0..self.0 {
                sleep(Duration::from_millis(1)).await;
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
