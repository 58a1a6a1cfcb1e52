//! Two processes of one server do what a seed says with reader–writer locks and semaphores, and a
//! judge looks at what is held at the same time.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider, entries_under};
use lock_runtime::{DistributedRwLock, DistributedSemaphore, LockError, LockErrorKind};
use lock_tests::{Rng, eventually, poll_once, unique};

use crate::{BOUND, nothing_held, run, shared};

const SEEDS: std::ops::Range<u64> = 0..12;
const TASKS: u64 = 5;
const STEPS: usize = 25;
/// How many permits there are.
const PERMITS: u32 = 4;

/// What is held at present, over both processes.
#[derive(Default)]
struct Judge {
    readers: AtomicI64,
    writers: AtomicI64,
    permits: AtomicI64,
    served: AtomicU64,
    last_write: AtomicU64,
}

impl Judge {
    async fn reads(&self, token: u64, pause: Duration) {
        self.readers.fetch_add(1, Ordering::SeqCst);
        assert!(
            token > self.last_write.load(Ordering::SeqCst),
            "a read's token is too low"
        );
        self.look();
        pass(pause).await;
        self.look();
        self.readers.fetch_sub(1, Ordering::SeqCst);
        self.served.fetch_add(1, Ordering::SeqCst);
    }

    async fn writes(&self, token: u64, pause: Duration) {
        self.writers.fetch_add(1, Ordering::SeqCst);
        let before = self.last_write.swap(token, Ordering::SeqCst);
        assert!(token > before, "a write's token is not above {before}");
        self.look();
        pass(pause).await;
        self.look();
        self.writers.fetch_sub(1, Ordering::SeqCst);
        self.served.fetch_add(1, Ordering::SeqCst);
    }

    fn look(&self) {
        let (readers, writers) = (
            self.readers.load(Ordering::SeqCst),
            self.writers.load(Ordering::SeqCst),
        );
        assert!(
            writers == 0 || (writers == 1 && readers == 0),
            "{readers} read and {writers} write"
        );
    }

    async fn has(&self, permits: u32, pause: Duration) {
        let now = self.permits.fetch_add(i64::from(permits), Ordering::SeqCst) + i64::from(permits);
        assert!(now <= i64::from(PERMITS), "{now} permits are out");
        pass(pause).await;
        self.permits.fetch_sub(i64::from(permits), Ordering::SeqCst);
        self.served.fetch_add(1, Ordering::SeqCst);
    }
}

async fn pass(pause: Duration) {
    match pause.is_zero() {
        true => tokio::task::yield_now().await,
        false => tokio::time::sleep(pause).await,
    }
}

/// Awaits an acquisition, or gives it up after a few polls.
async fn perhaps<T>(
    mut acquiring: Pin<&mut impl Future<Output = Result<Option<T>, LockError>>>,
    patience: Option<usize>,
) -> Option<T> {
    // A server that takes longer than the timeout is no holder.
    let given = |acquired: Result<Option<T>, LockError>| match acquired {
        Err(error) if error.kind() == LockErrorKind::ProviderUnavailable => None,
        acquired => acquired.expect("nothing else fails"),
    };
    let Some(polls) = patience else {
        return given(acquiring.await);
    };
    for _ in 0..polls {
        if let Some(acquired) = poll_once(acquiring.as_mut()).await {
            return given(acquired);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn play_rw(lock: DistributedRwLock, judge: Arc<Judge>, seed: u64) {
    let mut rng = Rng::new(seed);
    for _ in 0..STEPS {
        let pause = Duration::from_millis(rng.below(4) as u64);
        let patience = (rng.below(4) == 0).then(|| rng.below(4));
        let timeout = [Duration::ZERO, Duration::from_millis(3), BOUND][rng.below(3)];
        if rng.below(3) > 0 {
            let acquiring = pin!(lock.try_read_for(timeout));
            if let Some(guard) = perhaps(acquiring, patience).await {
                let token = guard.fencing_token().expect("it has one").get();
                judge.reads(token, pause).await;
                drop(guard);
            }
        } else {
            let acquiring = pin!(lock.try_write_for(timeout));
            if let Some(guard) = perhaps(acquiring, patience).await {
                let token = guard.fencing_token().expect("it has one").get();
                judge.writes(token, pause).await;
                drop(guard);
            }
        }
        pass(Duration::from_millis(rng.below(3) as u64)).await;
    }
}

async fn play_permits(permits: DistributedSemaphore, judge: Arc<Judge>, seed: u64) {
    let mut rng = Rng::new(seed);
    for _ in 0..STEPS {
        let pause = Duration::from_millis(rng.below(3) as u64);
        let patience = (rng.below(4) == 0).then(|| rng.below(4));
        let timeout = [Duration::ZERO, Duration::from_millis(3), BOUND][rng.below(3)];
        let take = 1 + rng.below(3) as u32;
        let acquiring = pin!(permits.try_acquire_many_for(take, timeout));
        if let Some(permit) = perhaps(acquiring, patience).await {
            judge.has(take, pause).await;
            drop(permit);
        }
        pass(Duration::from_millis(rng.below(2) as u64)).await;
    }
}

/// Slows some calls of the server down, as the seed says.
fn disturb(provider: &TestProvider, rng: &mut Rng) {
    for operation in [Operation::Acquire, Operation::Release, Operation::MayShare] {
        if rng.below(2) == 0 {
            provider.delay(operation, Duration::from_millis(rng.below(3) as u64));
        }
    }
}

async fn all(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        tokio::time::timeout(BOUND / 2, task)
            .await
            .expect("nobody waits for ever")
            .expect("no judgement is broken");
    }
}

#[test]
fn reads_and_writes_of_two_processes() {
    for seed in SEEDS {
        run(async move {
            let mut rng = Rng::new(seed);
            let provider = TestProvider::new();
            disturb(&provider, &mut rng);
            let (name, judge) = (unique(), Arc::new(Judge::default()));
            let mut tasks = Vec::new();
            for _ in 0..2 {
                let process = shared(provider.another_process());
                let lock = DistributedRwLock::on(process, name.as_str());
                for _ in 0..TASKS {
                    let playing = play_rw(lock.clone(), Arc::clone(&judge), rng.number());
                    tasks.push(tokio::spawn(playing));
                }
            }
            all(tasks).await;
            assert!(
                judge.served.load(Ordering::SeqCst) > 50,
                "seed {seed} served few"
            );
            nothing_held(&provider).await;
            eventually("the key is forgotten", BOUND, || async {
                entries_under(&name) == 0
            })
            .await;
        });
    }
}

#[test]
fn permits_of_two_processes() {
    for seed in SEEDS {
        run(async move {
            let mut rng = Rng::new(seed);
            let provider = TestProvider::new();
            disturb(&provider, &mut rng);
            let (name, judge) = (unique(), Arc::new(Judge::default()));
            let mut tasks = Vec::new();
            for _ in 0..2 {
                let process = shared(provider.another_process());
                let permits = DistributedSemaphore::on(process, name.as_str(), PERMITS);
                for _ in 0..TASKS {
                    let playing = play_permits(permits.clone(), Arc::clone(&judge), rng.number());
                    tasks.push(tokio::spawn(playing));
                }
            }
            all(tasks).await;
            assert!(
                judge.served.load(Ordering::SeqCst) > 50,
                "seed {seed} served few"
            );
            nothing_held(&provider).await;
            eventually("the key is forgotten", BOUND, || async {
                entries_under(&name) == 0
            })
            .await;
        });
    }
}
