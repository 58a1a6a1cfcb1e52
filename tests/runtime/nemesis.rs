//! Everything at once, by seeds: callers wait, try, leave and are cancelled, while the provider
//! fails, delays, loses and forgets.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider, entries_under};
use lock_runtime::{DistributedLock, LockGuard};
use lock_tests::{Rng, eventually, unique};

use crate::{BOUND, run};

const NAMES: usize = 3;
const TASKS: u64 = 24;
const ROUNDS: usize = 60;

/// Judges who is inside, and keeps the last token of each name.
#[derive(Default)]
struct Witness(Mutex<HashMap<String, Seen>>);

#[derive(Default)]
struct Seen {
    inside: Option<u64>,
    last_token: u64,
    entered: u64,
}

impl Witness {
    fn enter(&self, guard: &LockGuard) {
        let token = guard
            .fencing_token()
            .expect("the provider gives tokens")
            .get();
        let mut seen = self.0.lock().expect("no panic");
        let seen = seen.entry(guard.name().to_string()).or_default();
        if token <= seen.last_token {
            // It may have lost the lock before it came to use it.
            assert!(guard.is_lost(), "token {token} after {}", seen.last_token);
            return;
        }
        seen.last_token = token;
        seen.entered += 1;
        // A lost holder may still be inside; one that is not lost must have left.
        seen.inside = Some(token);
    }

    /// Checks that nobody came in since, unless the lock was lost.
    fn leave(&self, guard: &LockGuard) {
        let token = guard
            .fencing_token()
            .expect("the provider gives tokens")
            .get();
        let seen = self.0.lock().expect("no panic");
        let inside = seen[guard.name().as_str()].inside;
        assert!(
            inside == Some(token) || guard.is_lost(),
            "{inside:?} came in beside {token}"
        );
    }
}

async fn caller(locks: Vec<DistributedLock>, witness: Arc<Witness>, seed: u64) {
    let mut rng = Rng::new(seed);
    for _ in 0..ROUNDS {
        let lock = &locks[rng.below(locks.len())];
        let patience = Duration::from_millis(rng.below(20) as u64);
        let guard = match rng.below(4) {
            0 => lock.try_acquire().await.ok().flatten(),
            1 => lock.try_acquire_for(patience).await.ok().flatten(),
            2 => {
                // Cancelled, perhaps just when it is granted.
                let acquiring = pin!(lock.acquire());
                tokio::time::timeout(patience, acquiring)
                    .await
                    .ok()
                    .and_then(Result::ok)
            }
            _ => lock.acquire().await.ok(),
        };
        let Some(guard) = guard else { continue };
        witness.enter(&guard);
        if rng.below(3) == 0 {
            tokio::time::sleep(Duration::from_millis(rng.below(3) as u64)).await;
        } else {
            tokio::task::yield_now().await;
        }
        witness.leave(&guard);
        if rng.below(2) == 0 {
            let _ = guard.release().await;
        }
    }
}

async fn inject_faults(provider: TestProvider, names: Vec<String>, seed: u64) {
    let mut rng = Rng::new(seed);
    loop {
        tokio::time::sleep(Duration::from_millis(rng.below(8) as u64)).await;
        let operation = [Operation::Acquire, Operation::Renew, Operation::Release][rng.below(3)];
        let name = &names[rng.below(names.len())];
        match rng.below(5) {
            0 => provider.fail_next(operation, 1 + rng.below(3) as u32),
            1 => provider.delay(operation, Duration::from_millis(rng.below(10) as u64)),
            2 => provider.lose(name),
            3 => provider.delay(operation, Duration::ZERO),
            _ => {
                provider.freeze(true);
                tokio::time::sleep(Duration::from_millis(rng.below(10) as u64)).await;
                provider.freeze(false);
            }
        }
    }
}

async fn survive(seed: u64) {
    let provider = TestProvider::new().with_lease(Duration::from_millis(400));
    let prefix = unique();
    let names: Vec<_> = (0..NAMES)
        .map(|number| format!("{prefix}:{number}"))
        .collect();
    let witness = Arc::new(Witness::default());
    let faults = tokio::spawn(inject_faults(provider.clone(), names.clone(), seed));
    let callers: Vec<_> = (0..TASKS)
        .map(|task| {
            let locks = names
                .iter()
                .map(|name| crate::lock_on(&provider, name))
                .collect();
            tokio::spawn(caller(locks, Arc::clone(&witness), seed ^ (task << 32)))
        })
        .collect();
    for caller in callers {
        caller
            .await
            .unwrap_or_else(|panic| panic!("seed {seed}: {panic}"));
    }
    faults.abort();
    let _ = faults.await;
    provider.freeze(false);
    for operation in [Operation::Acquire, Operation::Renew, Operation::Release] {
        provider.delay(operation, Duration::ZERO);
        provider.fail_next(operation, 0);
    }
    let entered: u64 = witness
        .0
        .lock()
        .expect("no panic")
        .values()
        .map(|seen| seen.entered)
        .sum();
    assert!(entered > TASKS, "seed {seed}: only {entered} ever got in");
    // A release that failed leaves its lock to the lease.
    eventually("nothing is held", BOUND, || async { provider.held() == 0 }).await;
    eventually("every key is forgotten", BOUND, || async {
        entries_under(&prefix) == 0
    })
    .await;
}

#[test]
fn nobody_meets_and_nothing_is_left() {
    let seeds = std::env::var("LOCK_TESTS_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok());
    let seeds: u64 = seeds.unwrap_or(6);
    for seed in 0..seeds {
        run(survive(seed));
    }
}
