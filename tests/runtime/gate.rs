//! The queue of one process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider, entries, entries_under};
use lock_runtime::{DistributedLock, InProcessProvider, LockError, LockErrorKind};
use lock_tests::{eventually, poll_once};
use tokio::sync::mpsc;

use crate::own_process::in_own_process;
use crate::{BOUND, lock_on, nothing_held, run, shared};

/// Starts waiters one after another, each queued before the next one, and returns the order in
/// which they were served.
async fn order_served(lock: DistributedLock, waiters: usize) -> Vec<usize> {
    let first = lock.acquire().await.expect("the lock is free");
    let (served, mut order) = mpsc::unbounded_channel();
    for waiter in 0..waiters {
        let (lock, served) = (lock.clone(), served.clone());
        let mut acquiring = Box::pin(async move { lock.acquire().await });
        assert!(
            poll_once(acquiring.as_mut()).await.is_none(),
            "the lock is held"
        );
        tokio::spawn(async move {
            let guard = acquiring.await.expect("the holder releases");
            served.send(waiter).expect("the test waits");
            drop(guard);
        });
    }
    drop(served);
    first.release().await.expect("the lock was held");
    let mut result = Vec::new();
    while let Some(waiter) = order.recv().await {
        result.push(waiter);
    }
    result
}

#[test]
fn waiters_are_served_in_arrival_order() {
    run(async {
        let expected: Vec<_> = (0..100).collect();
        let in_process = DistributedLock::on(shared(InProcessProvider::new()), "order");
        assert_eq!(order_served(in_process, 100).await, expected);
        assert_eq!(
            order_served(lock_on(&TestProvider::new(), "order"), 100).await,
            expected
        );
        let one_by_one = TestProvider::new().without_local_hand_over();
        assert_eq!(
            order_served(lock_on(&one_by_one, "order"), 100).await,
            expected
        );
    });
}

#[test]
fn a_million_names_leave_the_table_empty() {
    in_own_process("gate::a_million_names_leave_the_table_empty", &[], || {
        run(async {
            let provider = shared(InProcessProvider::new());
            for number in 0..1_000_000 {
                let name = format!("million:{number}");
                let lock = DistributedLock::on(Arc::clone(&provider), name);
                let guard = lock.acquire().await.expect("nobody else asks");
                if number % 100_000 == 0 {
                    assert_eq!(entries(), 1);
                }
                drop(guard);
            }
            assert_eq!(entries(), 0);
        });
    });
}

#[test]
fn a_loop_of_locks_starves_no_other_task() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("it can be built");
    runtime.block_on(async {
        let greedy = tokio::spawn(async {
            let lock = DistributedLock::on(shared(InProcessProvider::new()), "greedy");
            loop {
                drop(lock.acquire().await.expect("nobody else asks"));
            }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        greedy.abort();
    });
}

#[test]
fn a_refused_lease_fails_nobody_who_asked_for_another() {
    run(async {
        let provider = TestProvider::new();
        provider.refuse_leases_above(Duration::from_secs(60));
        provider.freeze(true);
        let lock = lock_on(&provider, "refused");
        let long = lock.clone().lease(Duration::from_secs(120));
        let (mut refused, mut fine) = (Box::pin(long.acquire()), Box::pin(lock.acquire()));
        assert!(poll_once(refused.as_mut()).await.is_none());
        assert!(poll_once(fine.as_mut()).await.is_none());
        provider.freeze(false);
        assert_eq!(
            refused.await.unwrap_err().kind(),
            LockErrorKind::Unsupported
        );
        drop(fine.await.expect("its lease is fine"));
    });
}

#[test]
fn a_release_that_is_not_answered_is_no_contention() {
    run(async {
        let provider = TestProvider::new().with_lease(Duration::from_secs(2));
        let lock = lock_on(&provider, "unanswered");
        let guard = lock.acquire().await.expect("the lock is free");
        provider.freeze(true);
        let start = Instant::now();
        assert_eq!(
            guard.release().await.unwrap_err().kind(),
            LockErrorKind::ProviderUnavailable
        );
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "after {:?}",
            start.elapsed()
        );
        let waited = lock.acquire_for(Duration::from_millis(50)).await;
        assert_eq!(
            waited.unwrap_err().kind(),
            LockErrorKind::ProviderUnavailable
        );
        provider.freeze(false);
        drop(lock.acquire().await.expect("it answers again"));
    });
}

#[test]
fn a_thousand_leases_leave_the_table_empty() {
    run(async {
        let provider = TestProvider::new();
        let mut guards = Vec::new();
        for number in 0..1_000 {
            let lock = lock_on(&provider, &format!("leases:{number}"));
            guards.push(lock.acquire().await.expect("nobody else asks"));
        }
        assert_eq!(entries_under("leases:"), 1_000);
        drop(guards);
        nothing_held(&provider).await;
        eventually("the table is empty", BOUND, || async {
            entries_under("leases:") == 0
        })
        .await;
    });
}

#[test]
fn a_try_waits_for_a_release_that_is_on_its_way() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "on-its-way");
        let guard = lock.acquire().await.expect("the lock is free");
        provider.delay(Operation::Release, Duration::from_millis(50));
        drop(guard);
        let again = lock.try_acquire().await.expect("the provider answers");
        assert!(
            again.is_some(),
            "the lock was given back before it was asked for"
        );
    });
}

#[test]
fn a_zero_timeout_is_contended_and_others_time_out() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "kinds");
        let kind = |result: Result<_, LockError>| result.map(drop).unwrap_err().kind();
        let elsewhere = lock_on(&provider, "kinds")
            .acquire()
            .await
            .expect("the lock is free");
        assert_eq!(
            kind(lock.acquire_for(Duration::ZERO).await),
            LockErrorKind::Contended
        );
        assert!(
            lock.try_acquire()
                .await
                .expect("contention is no error")
                .is_none()
        );
        let start = Instant::now();
        let timeout = Duration::from_millis(80);
        assert_eq!(
            kind(lock.acquire_for(timeout).await),
            LockErrorKind::TimedOut
        );
        assert!(
            start.elapsed() >= timeout,
            "it waited for {:?}",
            start.elapsed()
        );
        assert!(
            lock.try_acquire_for(timeout)
                .await
                .expect("contention is no error")
                .is_none()
        );
        elsewhere.release().await.expect("it was held");

        // The same when another process holds it, as far as this one can tell.
        provider.refuse(true);
        assert_eq!(
            kind(lock.acquire_for(Duration::ZERO).await),
            LockErrorKind::Contended
        );
        assert_eq!(
            kind(lock.acquire_for(timeout).await),
            LockErrorKind::TimedOut
        );
    });
}

#[test]
fn a_waiter_who_leaves_does_not_cost_the_process_its_place() {
    run(async {
        let provider = TestProvider::new();
        provider.refuse(true);
        let lock = lock_on(&provider, "place");
        let mut impatient = Box::pin(lock.acquire_for(Duration::from_millis(50)));
        assert!(poll_once(impatient.as_mut()).await.is_none());
        let mut patient = Box::pin(lock.acquire());
        assert!(poll_once(patient.as_mut()).await.is_none());
        assert!(impatient.await.unwrap_err().is_contention());
        assert_eq!(
            provider.calls(Operation::Acquire),
            1,
            "the first call goes on"
        );
        provider.refuse(false);
        patient
            .await
            .expect("the lock is free")
            .release()
            .await
            .expect("it was held");
    });
}

#[test]
fn the_last_waiter_takes_the_request_back_before_it_answers() {
    run(async {
        let provider = TestProvider::new();
        provider.refuse(true);
        let lock = lock_on(&provider, "withdrawn");
        let result = lock.try_acquire_for(Duration::from_millis(300)).await;
        assert!(result.expect("contention is no error").is_none());
        assert_eq!(
            entries_under("withdrawn"),
            1,
            "of the lock itself, which is kept"
        );
        drop(lock);
        let gone = || async { entries_under("withdrawn") == 0 };
        eventually("no call is under way that could hold on to it", BOUND, gone).await;
    });
}

#[test]
fn a_failing_provider_fails_everybody_who_waits_for_that_call() {
    run(async {
        let provider = TestProvider::new();
        provider.freeze(true);
        provider.fail_next(Operation::Acquire, 1);
        let lock = lock_on(&provider, "fails");
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(lock.acquire())).collect();
        for acquiring in &mut waiting {
            assert!(poll_once(acquiring.as_mut()).await.is_none());
        }
        provider.freeze(false);
        for acquiring in waiting {
            let error = acquiring.await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
            assert_eq!(error.name().map(AsRef::as_ref), Some("fails"));
        }
        assert_eq!(provider.calls(Operation::Acquire), 1);
        drop(lock.acquire().await.expect("it failed only once"));
    });
}

#[test]
fn the_user_s_runtime_needs_no_timers_and_no_tokio() {
    let provider = TestProvider::new();
    let lock = lock_on(&provider, "no-timers");
    let holder = lock_on(&provider, "no-timers");
    let without_timers = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be built");
    without_timers.block_on(async {
        let guard = holder.acquire().await.expect("the lock is free");
        let waited = lock.try_acquire_for(Duration::from_millis(20)).await;
        assert!(waited.expect("contention is no error").is_none());
        guard.release().await.expect("it was held");
    });
    let guard = crate::dropped_at_every_poll::block_on(lock.acquire_for(Duration::from_secs(5)));
    crate::dropped_at_every_poll::block_on(guard.expect("the lock is free").release())
        .expect("it was held");
}
