//! Wakers are code of others, which panics and holds what it should not.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use lock_runtime::testing::TestProvider;
use lock_runtime::{DistributedLock, InProcessProvider, LockError, LockErrorKind, LockGuard};

use crate::own_process::in_own_process;
use crate::{BOUND, lock_on, run, shared};

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

#[derive(Default)]
struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Acquiring = Pin<Box<dyn Future<Output = Result<LockGuard, LockError>> + Send>>;

fn acquiring(lock: &DistributedLock) -> Acquiring {
    let lock = lock.clone();
    Box::pin(async move { lock.acquire().await })
}

/// Polls a future once with this waker.
fn poll(future: &mut Acquiring, waker: &Waker) -> Poll<Result<LockGuard, LockError>> {
    future.as_mut().poll(&mut Context::from_waker(waker))
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_from_being_woken() {
    in_own_process(
        "wakers::a_waker_that_panics_keeps_nobody_else_from_being_woken",
        &[],
        || {
            run(async {
                let provider = TestProvider::new();
                let lock = lock_on(&provider, "panics");
                let guard = lock.acquire().await.expect("the lock is free");
                let counts = Arc::new(Counts::default());
                let bad = Waker::from(Arc::new(Panics));
                let good = Waker::from(Arc::clone(&counts));
                let mut waiting = Vec::new();
                for waker in [&good, &bad, &good, &bad, &good] {
                    let mut future = acquiring(&lock);
                    assert!(poll(&mut future, waker).is_pending());
                    waiting.push(future);
                }
                // The same for those who wait for the loss, and for the end.
                let (mut lost, mut ended) = (guard.lost(), guard.ended());
                let mut others = (guard.lost(), guard.ended());
                for waker in [&bad, &good] {
                    let mut context = Context::from_waker(waker);
                    assert!(Pin::new(&mut lost).poll(&mut context).is_pending());
                    assert!(Pin::new(&mut ended).poll(&mut context).is_pending());
                    std::mem::swap(&mut lost, &mut others.0);
                    std::mem::swap(&mut ended, &mut others.1);
                }
                lock_runtime::shutdown().await;
                assert_eq!(
                    counts.0.load(Ordering::Relaxed),
                    5,
                    "three, and two signals"
                );
                for future in waiting {
                    let error = future.await.unwrap_err();
                    assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
                }
                drop(guard);
                drop(lock.acquire_for(BOUND).await.expect("it works on"));
            });
        },
    );
}

/// A waker that is the last to hold a guard of the same lock.
struct Holds(#[allow(dead_code, reason = "it is dropped")] Mutex<Option<LockGuard>>);

impl Wake for Holds {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_that_holds_a_guard_may_be_dropped_at_any_time() {
    run(async {
        for provider in [
            shared(TestProvider::new()),
            shared(InProcessProvider::new()),
        ] {
            let lock = DistributedLock::on(provider, "held-by-a-waker");
            let guard = lock.acquire().await.expect("the lock is free");
            let holds = Waker::from(Arc::new(Holds(Mutex::new(Some(guard)))));
            let mut waiting = acquiring(&lock);
            assert!(poll(&mut waiting, &holds).is_pending());
            drop(holds);
            // The waker is replaced, and with it the guard goes.
            assert!(poll(&mut waiting, Waker::noop()).is_pending());
            let waiting = tokio::time::timeout(BOUND, waiting).await;
            drop(waiting.expect("it is served").expect("the lock is free"));

            // And with a waiter that leaves.
            let guard = lock.acquire().await.expect("the lock is free");
            let holds = Waker::from(Arc::new(Holds(Mutex::new(Some(guard)))));
            let mut leaves = acquiring(&lock);
            assert!(poll(&mut leaves, &holds).is_pending());
            drop(holds);
            drop(leaves);
            drop(lock.acquire_for(BOUND).await.expect("it is free"));
        }
    });
}

#[test]
fn eighty_thousand_waiters_fail_and_leave_in_no_time() {
    const WAITERS: usize = 80_000;
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "crowd");
        provider.freeze(true);
        provider.fail_next(lock_runtime::testing::Operation::Acquire, 1);
        let mut waiting: Vec<_> = (0..WAITERS).map(|_| acquiring(&lock)).collect();
        for future in &mut waiting {
            assert!(poll(future, Waker::noop()).is_pending());
        }
        let start = Instant::now();
        provider.freeze(false);
        for future in waiting {
            assert!(future.await.is_err());
        }
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );

        // Out of order, from the middle of the queue.
        let guard = lock.acquire().await.expect("the lock is free");
        let mut waiting: Vec<_> = (0..WAITERS).map(|_| acquiring(&lock)).collect();
        for future in &mut waiting {
            assert!(poll(future, Waker::noop()).is_pending());
        }
        let start = Instant::now();
        let half = waiting.split_off(WAITERS / 2);
        drop(half);
        drop(waiting);
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        drop(guard);
    });
}

#[test]
fn a_caller_that_gives_up_and_is_polled_in_a_loop_stores_one_waker() {
    run(async {
        let provider = TestProvider::new();
        provider.freeze(true);
        let lock = lock_on(&provider, "loops");
        let counts = Arc::new(Counts::default());
        let mut waiting = Box::pin(lock.acquire_for(Duration::from_millis(20)));
        let start = Instant::now();
        // A fresh waker at each poll: nobody may keep more than the last.
        while start.elapsed() < Duration::from_millis(200) {
            let waker = Waker::from(Arc::clone(&counts));
            let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                return;
            }
            drop(waker);
            let kept = Arc::strong_count(&counts);
            assert!(kept <= 6, "{kept} wakers are kept");
        }
        panic!("it never gives up");
    });
}
