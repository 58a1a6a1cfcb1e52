//! Renewals, and releases that happen where nobody can wait for them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, Grant, LockError, LockErrorKind,
    LockGuard, LockProvider, Timestamp,
};

use crate::dropped_at_every_poll::block_on;
use crate::{lock_on, nothing_held, run};

const LEASE: Duration = Duration::from_millis(300);

fn guard_of(provider: &TestProvider, name: &str) -> LockGuard {
    block_on(lock_on(provider, name).acquire()).expect("the lock is free")
}

#[test]
fn a_guard_dropped_on_a_plain_thread_is_released() {
    let provider = TestProvider::new();
    let guard = guard_of(&provider, "plain");
    thread::spawn(move || drop(guard)).join().expect("no panic");
    block_on_nothing_held(&provider);
}

#[test]
fn a_guard_dropped_in_a_panic_is_released() {
    let provider = TestProvider::new();
    let guard = guard_of(&provider, "panic");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = guard;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    block_on_nothing_held(&provider);
}

#[test]
fn a_guard_dropped_in_a_thread_local_destructor_is_released() {
    thread_local! {
        static KEPT: RefCell<Option<LockGuard>> = const { RefCell::new(None) };
    }
    let provider = TestProvider::new();
    let guard = guard_of(&provider, "thread-local");
    thread::spawn(move || KEPT.set(Some(guard)))
        .join()
        .expect("no panic");
    block_on_nothing_held(&provider);
}

#[test]
fn guards_dropped_with_their_runtime_are_released() {
    let provider = TestProvider::new();
    for round in 0..50 {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
        let lock = lock_on(&provider, &format!("runtime:{round}"));
        let (held, holds) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let _guard = lock.acquire().await.expect("the lock is free");
            held.send(()).expect("the test waits");
            std::future::pending::<()>().await;
        });
        holds.recv().expect("the task has the lock");
        drop(runtime);
    }
    block_on_nothing_held(&provider);
}

fn block_on_nothing_held(provider: &TestProvider) {
    let provider = provider.clone();
    run(async move { nothing_held(&provider).await });
}

#[test]
fn blocking_code_starves_no_renewal() {
    let provider = TestProvider::new().with_lease(LEASE);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let guard = lock_on(&provider, "blocked")
            .acquire()
            .await
            .expect("the lock is free");
        thread::sleep(LEASE * 4);
        assert!(!guard.is_lost());
        assert!(provider.is_held("blocked"));
        assert!(
            provider.calls(Operation::Renew) >= 8,
            "every third of the lease"
        );
        guard.release().await.expect("it was held all the time");
    });
}

#[test]
fn a_released_lock_is_renewed_no_more() {
    run(async {
        let provider = TestProvider::new().with_lease(LEASE);
        let lock = lock_on(&provider, "renewed");
        lock.acquire()
            .await
            .expect("the lock is free")
            .release()
            .await
            .expect("it was held");
        let renewals = provider.calls(Operation::Renew);
        tokio::time::sleep(LEASE * 2).await;
        assert_eq!(provider.calls(Operation::Renew), renewals);
    });
}

#[test]
fn renewals_that_fail_are_tried_again() {
    run(async {
        for failures in [1, 2, 4] {
            let provider = TestProvider::new().with_lease(LEASE);
            provider.fail_next(Operation::Renew, failures);
            let guard = lock_on(&provider, "again")
                .acquire()
                .await
                .expect("the lock is free");
            tokio::time::sleep(LEASE * 2).await;
            assert!(!guard.is_lost(), "after {failures} failures");
            assert!(provider.calls(Operation::Renew) > u64::from(failures));
            guard.release().await.expect("it was held all the time");
        }
    });
}

#[test]
fn renewals_that_fail_are_no_storm() {
    run(async {
        let provider = TestProvider::new().with_lease(LEASE * 2);
        provider.fail_next(Operation::Renew, u32::MAX);
        let guard = lock_on(&provider, "storm")
            .acquire()
            .await
            .expect("the lock is free");
        guard.lost().await;
        // From a third of the lease on, one for every thirtieth of it.
        let renewals = provider.calls(Operation::Renew);
        assert!((5..=21).contains(&renewals), "{renewals} renewals");
    });
}

#[test]
fn a_renewal_that_hangs_does_not_keep_the_next_one_from_coming() {
    run(async {
        let provider = TestProvider::new().with_lease(LEASE * 3);
        let guard = lock_on(&provider, "hangs")
            .acquire()
            .await
            .expect("the lock is free");
        // Swallows the first renewal, at a third of the lease, and lets go before the deadline.
        provider.delay(Operation::Renew, LEASE * 100);
        lock_tests::eventually("a renewal hangs", LEASE * 3, || async {
            provider.calls(Operation::Renew) == 1
        })
        .await;
        provider.delay(Operation::Renew, Duration::ZERO);
        tokio::time::sleep(LEASE * 4).await;
        assert!(!guard.is_lost());
        guard.release().await.expect("it was held all the time");
    });
}

#[test]
fn a_lock_that_cannot_be_renewed_is_lost_at_its_deadline() {
    // Long enough for its margin to outlast a busy machine.
    let lease = Duration::from_secs(10);
    let validity = lease - lease / 100 - Duration::from_millis(2);
    run(async move {
        let provider = TestProvider::new().with_lease(lease);
        provider.delay(Operation::Renew, lease * 10);
        let mut rounds = Vec::new();
        for round in 0..9 {
            let lock = lock_on(&provider, &format!("deadline:{round}"));
            rounds.push(tokio::spawn(async move {
                // Apart, so that not all of them wait for the same processor.
                tokio::time::sleep(Duration::from_millis(50) * round).await;
                let before = Instant::now();
                let guard = lock.acquire().await.expect("the lock is free");
                let after = Instant::now();
                guard.lost().await;
                let noticed = Instant::now();
                assert!(noticed < before + lease, "later than the server");
                assert!(guard.is_lost());
                assert_eq!(
                    guard.release().await.unwrap_err().kind(),
                    LockErrorKind::Lost
                );
                noticed.saturating_duration_since(after + validity)
            }));
        }
        let mut late = Vec::new();
        for round in rounds {
            late.push(round.await.expect("no panic"));
        }
        // The others may have waited for a processor.
        assert!(
            late.iter().min() <= Some(&Duration::from_millis(5)),
            "late by {late:?}"
        );
    });
}

#[test]
fn a_guard_is_lost_at_its_deadline_whatever_timers_do() {
    let provider = TestProvider::new().with_lease(LEASE);
    let guard = guard_of(&provider, "clock");
    let held_since = Instant::now();
    provider.freeze(true);
    let validity = LEASE - LEASE / 100 - Duration::from_millis(2);
    while held_since.elapsed() < validity {
        std::hint::spin_loop();
    }
    assert!(guard.is_lost());
    provider.freeze(false);
}

#[test]
fn another_owner_is_a_loss_at_the_next_renewal() {
    run(async {
        let provider = TestProvider::new().with_lease(LEASE);
        let guard = lock_on(&provider, "owner")
            .acquire()
            .await
            .expect("the lock is free");
        provider.forget("owner");
        let start = Instant::now();
        guard.lost().await;
        assert!(
            start.elapsed() < LEASE * 2 / 3,
            "after {:?}",
            start.elapsed()
        );
        assert!(guard.is_lost());
    });
}

#[test]
fn a_reported_loss_is_signalled_at_once() {
    run(async {
        let provider = TestProvider::new();
        let guard = lock_on(&provider, "reported")
            .acquire()
            .await
            .expect("the lock is free");
        let (lost, cloned) = (guard.lost(), guard.lost().clone());
        let start = Instant::now();
        provider.lose("reported");
        lost.await;
        cloned.await;
        assert!(
            start.elapsed() < Duration::from_millis(50),
            "after {:?}",
            start.elapsed()
        );
        let error = guard.release().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost);
        assert!(error.to_string().contains("told to lose"), "{error}");
    });
}

#[test]
fn a_thousand_locks_are_renewed_together() {
    run(async {
        let provider = TestProvider::new().with_lease(LEASE * 2);
        let mut guards = Vec::new();
        for number in 0..1_000 {
            let lock = lock_on(&provider, &format!("many:{number}"));
            guards.push(lock.acquire().await.expect("the lock is free"));
        }
        tokio::time::sleep(LEASE * 6).await;
        assert_eq!(guards.iter().filter(|guard| guard.is_lost()).count(), 0);
        drop(guards);
        nothing_held(&provider).await;
    });
}

/// Wraps the test provider with the default `renew_all`, and one lock whose renewals hang.
struct OneHangs(TestProvider);

impl LockProvider for OneHangs {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        if grant.name() == "hangs" {
            return Box::pin(std::future::pending());
        }
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(15)).await;
            self.0.renew(grant).await
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }
}

#[test]
fn renewals_of_many_locks_do_not_wait_for_one_another() {
    run(async {
        let lease = Duration::from_secs(2);
        let locks = crate::shared(OneHangs(TestProvider::new().with_lease(lease)));
        let lock = |name: &str| DistributedLock::on(Arc::clone(&locks), name);
        let hangs = lock("hangs").acquire().await.expect("the lock is free");
        let mut guards = Vec::new();
        for number in 0..200 {
            guards.push(
                lock(&format!("{number}"))
                    .acquire()
                    .await
                    .expect("the lock is free"),
            );
        }
        hangs.lost().await;
        tokio::time::sleep(lease).await;
        assert_eq!(guards.iter().filter(|guard| guard.is_lost()).count(), 0);
    });
}

#[test]
fn a_panic_in_a_waker_does_not_end_the_keeper() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }
    let provider = TestProvider::new().with_lease(LEASE);
    provider.delay(Operation::Renew, LEASE * 10);
    let guard = guard_of(&provider, "waker");
    let mut lost = std::pin::pin!(guard.lost());
    let waker = std::task::Waker::from(Arc::new(Panics));
    let mut context = std::task::Context::from_waker(&waker);
    assert!(lost.as_mut().poll(&mut context).is_pending());
    while !guard.is_lost() {
        thread::sleep(Duration::from_millis(5));
    }
    // Past the moment at which the keeper wakes it.
    thread::sleep(LEASE);
    drop(guard_of(&TestProvider::new(), "after"));
}
