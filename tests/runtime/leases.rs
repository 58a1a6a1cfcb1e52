//! Leases that differ cost no more than equal ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{DistributedLock, LockProvider};
use lock_tests::poll_once;

use crate::{lock_on, nothing_held, run, shared};

/// Measures how many sections 16 tasks get done on one name in half a second, for each call of the
/// server.
async fn sections_a_call(lease_of: impl Fn(u64) -> Duration) -> f64 {
    let provider = TestProvider::new();
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let tasks: Vec<_> = (0..16)
        .map(|number| {
            let lock = lock_on(&provider, "hot").lease(lease_of(number));
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let guard = lock.acquire().await.expect("its turn comes");
                    tokio::task::yield_now().await;
                    done.fetch_add(1, Ordering::Relaxed);
                    guard.release().await.expect("it was held");
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no panic");
    }
    let calls = provider.calls(Operation::Acquire);
    done.load(Ordering::Relaxed) as f64 / calls as f64
}

#[test]
fn leases_that_hardly_differ_are_handed_over() {
    run(async {
        let equal = sections_a_call(|_| Duration::from_secs(20)).await;
        let rising = sections_a_call(|number| Duration::from_millis(20_000 + number)).await;
        let apart = sections_a_call(|number| Duration::from_millis(20_000 + number * 250)).await;
        assert!(
            rising > equal / 2.0,
            "{rising} sections a call, equal: {equal}"
        );
        assert!(
            apart > equal / 2.0,
            "{apart} sections a call, equal: {equal}"
        );
    });
}

#[test]
fn a_lease_is_never_shorter_than_asked_nor_much_longer() {
    run(async {
        let provider = TestProvider::new();
        let asked = [1_000, 1_200, 1_300, 4_000, 900].map(Duration::from_millis);
        let holder = lock_on(&provider, "asked").acquire().await;
        let holder = holder.expect("the lock is free");
        let locks = asked.map(|lease| lock_on(&provider, "asked").lease(lease));
        let mut waiting: Vec<_> = locks.iter().map(|lock| Box::pin(lock.acquire())).collect();
        for waiter in &mut waiting {
            assert!(poll_once(waiter.as_mut()).await.is_none());
        }
        drop(holder);
        for (waiter, asked) in waiting.into_iter().zip(asked) {
            let guard = waiter.await.expect("its turn comes");
            let lease = provider.lease_of("asked").expect("it is held");
            assert!(
                (asked..=asked + asked / 4).contains(&lease),
                "{lease:?} for {asked:?}"
            );
            drop(guard);
        }
    });
}

#[test]
fn a_refused_longer_lease_is_asked_for_again_as_it_was() {
    run(async {
        let provider = TestProvider::new();
        let (short, long) = (Duration::from_secs(10), Duration::from_secs(12));
        provider.refuse_leases_above(short);
        provider.freeze(true);
        let (first, second) = (
            lock_on(&provider, "refused").lease(short),
            lock_on(&provider, "refused").lease(long),
        );
        let before = lock_on(&provider, "refused").lease(short);
        let (mut before, mut fine, mut refused) = (
            Box::pin(before.acquire()),
            Box::pin(first.acquire()),
            Box::pin(second.acquire()),
        );
        for waiter in [&mut before, &mut fine, &mut refused] {
            assert!(poll_once(waiter.as_mut()).await.is_none());
        }
        provider.freeze(false);
        let held = before.await.expect("its lease is fine");
        provider.freeze(true);
        drop(held);
        provider.freeze(false);
        drop(fine.await.expect("its lease is fine"));
        assert!(refused.await.is_err());
        nothing_held(&provider).await;
    });
}

#[test]
fn unequal_leases_are_renewed_together() {
    run(async {
        const LOCKS: u64 = 1_000;
        let calls = |unequal: bool| async move {
            let provider = Arc::new(Renewals(TestProvider::new(), AtomicU64::new(0)));
            let shared: Arc<dyn LockProvider> = Arc::clone(&provider) as _;
            let mut guards = Vec::new();
            for number in 0..LOCKS {
                let extra = if unequal { number % 500 } else { 0 };
                let lock = DistributedLock::on(Arc::clone(&shared), format!("many:{number}"));
                let lock = lock.lease(Duration::from_millis(1_100 + extra));
                guards.push(lock.acquire().await.expect("the lock is free"));
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(guards.iter().filter(|guard| guard.is_lost()).count(), 0);
            provider.1.load(Ordering::Relaxed)
        };
        let (equal, unequal) = (calls(false).await, calls(true).await);
        assert!(
            unequal < LOCKS / 2,
            "{unequal} calls, of equal ones {equal}"
        );
    });
}

/// Counts its calls to `renew_all`.
struct Renewals(TestProvider, AtomicU64);

impl LockProvider for Renewals {
    fn capabilities(&self) -> lock_runtime::Capabilities {
        self.0.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a lock_runtime::AcquireRequest,
    ) -> lock_runtime::BoxFuture<'a, Result<lock_runtime::Grant, lock_runtime::LockError>> {
        self.0.acquire(request)
    }

    fn renew_all<'a>(
        &'a self,
        grants: &'a [Arc<lock_runtime::Grant>],
    ) -> lock_runtime::BoxFuture<'a, Vec<Result<lock_runtime::Timestamp, lock_runtime::LockError>>>
    {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.renew_all(grants)
    }

    fn release<'a>(
        &'a self,
        grant: &'a lock_runtime::Grant,
    ) -> lock_runtime::BoxFuture<'a, Result<(), lock_runtime::LockError>> {
        self.0.release(grant)
    }
}

/// Both locks are on one provider, which counts as one however it is shared.
#[test]
fn a_default_lease_is_as_good_as_one_that_is_named() {
    run(async {
        let provider = TestProvider::new().with_lease(Duration::from_secs(30));
        let shared = shared(provider.clone());
        let default = DistributedLock::on(Arc::clone(&shared), "named");
        let named = DistributedLock::on(shared, "named").lease(Duration::from_secs(30));
        let holder = default.acquire().await.expect("the lock is free");
        let mut one = Box::pin(named.acquire());
        let mut two = Box::pin(default.acquire());
        assert!(poll_once(one.as_mut()).await.is_none());
        assert!(poll_once(two.as_mut()).await.is_none());
        drop(holder);
        drop(one.await.expect("its turn comes"));
        drop(two.await.expect("its turn comes"));
        assert_eq!(provider.calls(Operation::Acquire), 2);
    });
}
