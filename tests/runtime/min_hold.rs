//! The option `min_hold`: the lock stays for a while after its body.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    DistributedLock, FileProvider, InProcessProvider, LockErrorKind, LockProvider, distributed_lock,
};
use lock_tests::{Scratch, poll_once};

use crate::own_process::in_own_process;
use crate::{BOUND, lock_on, nothing_held, run, shared};

const MIN_HOLD: Duration = Duration::from_millis(400);
/// The time that a busy machine may add.
const SLACK: Duration = Duration::from_millis(200);

/// Tells whether so much time has passed, and hardly more.
fn is_about(passed: Duration, expected: Duration) -> bool {
    (expected..expected + SLACK).contains(&passed)
}

/// Checks that the lock stays, as this process sees it and, where that can be, as another one does.
async fn stays_on(provider: Arc<dyn LockProvider>, elsewhere: Arc<dyn LockProvider>) {
    let lock = DistributedLock::on(provider, "stays");
    let kept = lock.clone().min_hold(MIN_HOLD);
    let elsewhere = DistributedLock::on(elsewhere, "stays");
    let start = Instant::now();
    let guard = kept.acquire().await.expect("the lock is free");
    guard.release().await.expect("it was held");
    assert!(start.elapsed() < MIN_HOLD, "it does not wait for it");
    for lock in [&lock, &kept, &elsewhere] {
        assert!(lock.try_acquire().await.expect("no error").is_none());
    }
    let timed_out = lock.acquire_for(MIN_HOLD / 8).await.unwrap_err();
    assert_eq!(timed_out.kind(), LockErrorKind::TimedOut);
    // Who waits gets it at the end, here and there, one after another.
    let there = tokio::spawn(async move {
        let guard = elsewhere.acquire().await.expect("its turn comes");
        (Instant::now(), guard.release().await)
    });
    let guard = lock.acquire().await.expect("its turn comes");
    let here = Instant::now();
    drop(guard);
    let (there, released) = there.await.expect("no panic");
    released.expect("it was held");
    let first = here.min(there).duration_since(start);
    assert!(is_about(first, MIN_HOLD), "after {first:?}");
}

#[test]
fn the_lock_stays_after_its_body() {
    run(async {
        let in_process = shared(InProcessProvider::new());
        stays_on(Arc::clone(&in_process), in_process).await;
        let test = TestProvider::new();
        stays_on(shared(test.clone()), shared(test.another_process())).await;
        let one_by_one = TestProvider::new().without_local_hand_over();
        stays_on(
            shared(one_by_one.clone()),
            shared(one_by_one.another_process()),
        )
        .await;
        let scratch = Scratch::new();
        let file = || shared(FileProvider::new(scratch.path()));
        stays_on(file(), file()).await;
    });
}

#[distributed_lock(name = "jobs", provider = locks, min_hold = "400ms", on_unavailable = "skip")]
async fn job(locks: &Arc<dyn LockProvider>, how: &str) -> Option<()> {
    match how {
        "ends" => Some(()),
        "fails" => None,
        "panics" => panic!("on purpose"),
        _ => std::future::pending().await,
    }
}

#[test]
fn however_the_body_ends() {
    run(async {
        for how in ["ends", "fails", "panics", "is dropped"] {
            let provider = TestProvider::new();
            let locks = shared(provider.clone());
            let start = Instant::now();
            let call = {
                let locks = Arc::clone(&locks);
                async move { job(&locks, how).await }
            };
            let call = tokio::spawn(call);
            if how == "is dropped" {
                tokio::time::sleep(MIN_HOLD / 8).await;
                call.abort();
            }
            let _ = call.await;
            let skipped = job(&locks, "ends").await;
            assert!(skipped.is_none(), "after one that {how}");
            nothing_held(&provider).await;
            let held = start.elapsed();
            assert!(is_about(held, MIN_HOLD), "after one that {how}: {held:?}");
        }
    });
}

#[test]
fn it_may_be_longer_than_the_lease() {
    run(async {
        let provider = TestProvider::new().with_lease(MIN_HOLD / 4);
        let start = Instant::now();
        let lock = lock_on(&provider, "long").min_hold(MIN_HOLD);
        drop(lock.acquire().await.expect("the lock is free"));
        drop(lock.acquire().await.expect("its turn comes"));
        assert!(is_about(start.elapsed(), MIN_HOLD), "{:?}", start.elapsed());
        assert!(provider.calls(Operation::Renew) > 3, "it is renewed");
    });
}

#[test]
fn nothing_is_kept_after_a_loss() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "lost").min_hold(BOUND);
        let guard = lock.acquire().await.expect("the lock is free");
        provider.lose("lost");
        guard.lost().await;
        drop(guard);
        let again = lock_on(&provider, "lost").acquire_for(BOUND / 10).await;
        drop(again.expect("nobody holds it"));

        // Or if it is lost while it is kept: then the server says so.
        let lock = lock.min_hold(MIN_HOLD);
        drop(lock.acquire().await.expect("the lock is free"));
        provider.lose("lost");
        let start = Instant::now();
        let again = lock_on(&provider, "lost").acquire_for(BOUND / 10).await;
        drop(again.expect("nobody holds it"));
        assert!(start.elapsed() < MIN_HOLD);
    });
}

#[test]
fn waiters_of_the_process_do_not_pass_it_on() {
    run(async {
        let provider = TestProvider::new();
        let kept = lock_on(&provider, "queue").min_hold(MIN_HOLD);
        let start = Instant::now();
        let guard = kept.acquire().await.expect("the lock is free");
        let mut waiting = [Box::pin(kept.acquire()), Box::pin(kept.acquire())];
        for waiter in &mut waiting {
            assert!(poll_once(waiter.as_mut()).await.is_none());
        }
        drop(guard);
        for (number, waiter) in (1..).zip(waiting) {
            drop(waiter.await.expect("its turn comes"));
            let passed = start.elapsed();
            assert!(is_about(passed, MIN_HOLD * number), "{number}: {passed:?}");
        }
    });
}

#[test]
fn zero_is_none_and_a_day_is_the_most() {
    run(async {
        let lock = lock_on(&TestProvider::new(), "bounds");
        for _ in 0..2 {
            let none = lock.clone().min_hold(Duration::ZERO);
            let guard = none.try_acquire().await.expect("no error");
            let guard = guard.expect("nothing keeps it");
            guard.release().await.expect("it was held");
        }
        let long = lock.min_hold(Duration::from_secs(24 * 60 * 60 + 1));
        let error = long.acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig);
        assert!(error.to_string().contains("at most 24 h"), "{error}");
    });
}

#[test]
fn a_shutdown_frees_what_is_kept() {
    in_own_process("min_hold::a_shutdown_frees_what_is_kept", &[], || {
        run(async {
            let provider = TestProvider::new();
            let lock = lock_on(&provider, "shut-down").min_hold(BOUND);
            drop(lock.acquire().await.expect("the lock is free"));
            assert!(provider.is_held("shut-down"));
            lock_runtime::shutdown().await;
            assert!(!provider.is_held("shut-down"));
        });
    });
}
