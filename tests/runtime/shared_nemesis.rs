//! Everything at once for reader–writer locks and semaphores, by seeds: two processes wait, try,
//! leave and are dropped at any poll, while their server fails, delays, loses and freezes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider, keys_in_use};
use lock_runtime::{LockMode, RwLockUpgradeableReadGuard};
use lock_tests::any_lock::permits;
use lock_tests::{AnyGuard, AnyLock, Rng, Window, Windows, boot_nanos, eventually, poll_once};

use crate::own_process::in_own_process;
use crate::{BOUND, run, shared};

const TASKS: u64 = 6;
const ROUNDS: usize = 40;
const SEEDS: u64 = 4;

struct Caller {
    provider: Arc<dyn lock_runtime::LockProvider>,
    name: &'static str,
    process: usize,
    rng: Rng,
    windows: Arc<Windows>,
}

impl Caller {
    async fn run(mut self) {
        for _ in 0..ROUNDS {
            let mode = match self.name {
                "rw" => self.rng.one_of(&[
                    LockMode::Read,
                    LockMode::Read,
                    LockMode::Upgradeable,
                    LockMode::Write,
                ]),
                _ => permits(1 + self.rng.below(3) as u32, 3 + self.rng.below(2) as u32),
            };
            let mut lock = AnyLock::on(mode, Arc::clone(&self.provider), self.name);
            if self.rng.below(10) == 0 {
                lock = lock.min_hold(self.rng.millis(1..20));
            }
            if let Some(guard) = self.acquire(&lock).await {
                self.hold(mode, guard).await;
            }
        }
    }

    async fn acquire(&mut self, lock: &AnyLock) -> Option<AnyGuard> {
        let patience = self.rng.millis(0..20);
        match self.rng.below(5) {
            0 => lock.try_acquire().await.ok().flatten(),
            1 => lock.try_acquire_for(patience).await.ok().flatten(),
            2 => {
                // Cancelled, perhaps just when it is granted.
                let acquiring = pin!(lock.acquire());
                let granted = tokio::time::timeout(patience, acquiring).await;
                granted.ok().and_then(Result::ok)
            }
            3 => {
                let mut acquiring = Box::pin(lock.acquire());
                for _ in 0..self.rng.below(8) {
                    if let Some(answer) = poll_once(acquiring.as_mut()).await {
                        return answer.ok();
                    }
                    tokio::task::yield_now().await;
                }
                None
            }
            _ => lock.acquire().await.ok(),
        }
    }

    async fn hold(&mut self, mode: LockMode, guard: AnyGuard) {
        let from = boot_nanos();
        if guard.is_lost() {
            return;
        }
        match self.rng.below(3) {
            0 => tokio::time::sleep(self.rng.millis(0..4)).await,
            _ => tokio::task::yield_now().await,
        }
        let until = boot_nanos();
        // Read after the clock: what is not lost now was valid then.
        if !guard.is_lost() {
            self.windows.record(Window {
                name: self.name.to_owned(),
                holder: self.process.to_string(),
                mode,
                from,
                until,
                token: guard.fencing_token().map(|token| token.get()),
            });
        }
        let guard = match guard {
            AnyGuard::Upgradeable(reader) if self.rng.below(4) > 0 => {
                match self.upgrade(reader).await {
                    Some(guard) => {
                        return Box::pin(self.hold(LockMode::Write, guard)).await;
                    }
                    None => return,
                }
            }
            guard => guard,
        };
        match self.rng.below(2) {
            0 => drop(guard),
            _ => drop(guard.release().await),
        }
    }

    /// Waits to become the writer, for a while or until it is dropped.
    async fn upgrade(&mut self, reader: RwLockUpgradeableReadGuard) -> Option<AnyGuard> {
        let patience = self.rng.millis(0..20);
        let upgraded = match self.rng.below(4) {
            0 => reader.upgrade_for(Duration::ZERO).await,
            1 => reader.upgrade_for(patience).await,
            2 => {
                // Cancelled, perhaps just when it is the writer.
                let upgrade = pin!(reader.upgrade());
                tokio::time::timeout(patience, upgrade).await.ok()?
            }
            _ => reader.upgrade().await,
        };
        upgraded.ok().map(AnyGuard::Write)
    }
}

const OPERATIONS: [Operation; 5] = [
    Operation::Acquire,
    Operation::Renew,
    Operation::Release,
    Operation::MayShare,
    Operation::Upgrade,
];

async fn inject_faults(provider: TestProvider, mut rng: Rng) {
    loop {
        tokio::time::sleep(rng.millis(0..8)).await;
        let operation = rng.one_of(&OPERATIONS);
        match rng.below(6) {
            0 => provider.fail_next(operation, 1 + rng.below(3) as u32),
            1 => provider.delay(operation, rng.millis(0..10)),
            2 => provider.lose(rng.one_of(&["rw", "permits"])),
            3 | 4 => provider.delay(operation, Duration::ZERO),
            _ => {
                provider.freeze(true);
                tokio::time::sleep(rng.millis(0..10)).await;
                provider.freeze(false);
            }
        }
    }
}

async fn survive(seed: u64) {
    let mut rng = Rng::new(seed);
    let provider = TestProvider::new().with_lease(Duration::from_millis(400));
    let windows = Arc::new(Windows::default());
    let faults = inject_faults(provider.clone(), Rng::new(rng.number()));
    let faults = tokio::spawn(faults);
    let mut callers = Vec::new();
    for process in 0..2 {
        let provider = shared(provider.another_process());
        for name in ["rw", "permits"] {
            for _ in 0..TASKS {
                let caller = Caller {
                    provider: Arc::clone(&provider),
                    name,
                    process,
                    rng: Rng::new(rng.number()),
                    windows: Arc::clone(&windows),
                };
                callers.push(tokio::spawn(caller.run()));
            }
        }
    }
    for caller in callers {
        let ended = tokio::time::timeout(BOUND / 2, caller).await;
        let ended = ended.unwrap_or_else(|_| panic!("seed {seed}: somebody waits for ever"));
        ended.unwrap_or_else(|panic| panic!("seed {seed}: {panic}"));
    }
    faults.abort();
    let _ = faults.await;
    provider.freeze(false);
    for operation in OPERATIONS {
        provider.delay(operation, Duration::ZERO);
        provider.fail_next(operation, 0);
    }
    let seen = windows.check();
    assert!(
        seen.grants["read"] > 20 && seen.grants["write"] > 5 && seen.grants["upgradeable"] > 5,
        "seed {seed}: {seen:?}"
    );
    assert!(
        seen.most_readers > 1 && seen.most_permits >= 3,
        "seed {seed}: {seen:?}"
    );
    assert!(seen.changes_of_holder > 10, "seed {seed}: {seen:?}");
    // A release that failed leaves its lock to the lease.
    eventually("nothing is held", BOUND, async || provider.held() == 0).await;
    eventually("every key is forgotten", BOUND, async || keys_in_use() == 0).await;
}

#[test]
fn nobody_conflicts_and_nothing_is_left() {
    let test = "shared_nemesis::nobody_conflicts_and_nothing_is_left";
    in_own_process(test, &[], || {
        let seeds = std::env::var("LOCK_TESTS_SEEDS")
            .ok()
            .and_then(|it| it.parse().ok());
        for seed in 0..seeds.unwrap_or(SEEDS) {
            run(survive(seed));
        }
    });
}
