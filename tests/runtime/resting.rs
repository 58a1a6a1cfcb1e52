//! Futures that were polled, are kept, and are not polled any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{DistributedLock, InProcessProvider, LockErrorKind};
use lock_tests::{eventually, poll_once};

use crate::{BOUND, lock_on, nothing_held, run, shared};

const LEASE: Duration = Duration::from_millis(300);

#[test]
fn a_grant_that_nobody_takes_reaches_another_process_within_a_lease() {
    run(async {
        let provider = TestProvider::new().with_lease(LEASE);
        let lock = lock_on(&provider, "rests");
        let holder = lock.acquire().await.expect("the lock is free");
        let mut rests = Box::pin(lock.acquire());
        assert!(poll_once(rests.as_mut()).await.is_none());
        holder.release().await.expect("it was held");

        let elsewhere = lock_on(&provider.another_process(), "rests");
        let start = Instant::now();
        let guard = elsewhere.acquire().await.expect("it is free by and by");
        let bound = LEASE + Duration::from_millis(100);
        assert!(start.elapsed() < bound, "after {:?}", start.elapsed());

        // Polled at last, it queues again, and is served.
        assert!(poll_once(rests.as_mut()).await.is_none());
        guard.release().await.expect("it was held");
        let late = rests.await.expect("it is free again");
        assert!(!late.is_lost());
        drop(late);
        nothing_held(&provider).await;
    });
}

#[test]
fn a_grant_is_not_kept_past_the_timeout_of_who_does_not_take_it() {
    run(async {
        let timeout = Duration::from_millis(200);
        let server = TestProvider::new();
        let locks = [
            lock_on(&server, "timeout"),
            DistributedLock::on(shared(InProcessProvider::new()), "timeout"),
        ];
        for lock in locks {
            let holder = lock.acquire().await.expect("the lock is free");
            let mut rests = Box::pin(lock.acquire_for(timeout));
            assert!(poll_once(rests.as_mut()).await.is_none());
            let mut too = Box::pin(lock.acquire_for(timeout));
            assert!(poll_once(too.as_mut()).await.is_none());
            let start = Instant::now();
            let next = lock.clone();
            let next = tokio::spawn(async move { next.acquire().await });
            tokio::task::yield_now().await;
            holder.release().await.expect("it was held");
            let guard = next.await.expect("no panic").expect("its turn comes");
            let waited = start.elapsed();
            assert!(
                (timeout..timeout * 2 + Duration::from_millis(200)).contains(&waited),
                "after {waited:?}"
            );
            // Their time is up, and somebody holds it.
            for rested in [rests, too] {
                assert_eq!(rested.await.unwrap_err().kind(), LockErrorKind::TimedOut);
            }
            drop(guard);
        }
        nothing_held(&server).await;
    });
}

/// Nobody else wanted the lock, so nobody held it, whatever became of the grant.
#[test]
fn a_grant_that_was_not_taken_is_no_other_holder() {
    run(async {
        let timeout = Duration::from_millis(100);
        for server in [TestProvider::new(), TestProvider::new().with_lease(LEASE)] {
            let lock = lock_on(&server, "alone");
            server.delay(Operation::Acquire, timeout / 4);
            let mut rests = Box::pin(lock.acquire_for(timeout));
            assert!(poll_once(rests.as_mut()).await.is_none());
            // The grant comes, and is taken back.
            eventually("it is granted", timeout * 20, || async {
                server.is_held("alone")
            })
            .await;
            nothing_held(&server).await;
            let error = rests.await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        }
    });
}

#[test]
fn who_takes_its_grant_late_keeps_it_renewed() {
    run(async {
        let provider = TestProvider::new().with_lease(LEASE);
        let lock = lock_on(&provider, "late");
        let holder = lock.acquire().await.expect("the lock is free");
        let mut rests = Box::pin(lock.acquire());
        assert!(poll_once(rests.as_mut()).await.is_none());
        holder.release().await.expect("it was held");
        // Past the first renewal, which it did not get.
        tokio::time::sleep(LEASE / 2).await;
        let guard = poll_once(rests.as_mut()).await.expect("it is its turn");
        let guard = guard.expect("it is held");
        tokio::time::sleep(LEASE * 3).await;
        assert!(!guard.is_lost());
    });
}

/// A future rests as the losing arm of a `select!` over a borrowed one, and in a task that nobody
/// wakes.
#[test]
fn every_kind_of_resting_future_lets_others_go_on() {
    run(async {
        let provider = TestProvider::new().with_lease(LEASE);
        let lock = lock_on(&provider, "select");
        let holder = lock.acquire().await.expect("the lock is free");
        let mut acquiring = Box::pin(lock.acquire());
        tokio::select! {
            _ = &mut acquiring => panic!("somebody holds it"),
            () = tokio::time::sleep(LEASE / 10) => {}
        }
        // In a task that is never woken by its own doing.
        let parked = lock.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let parked = tokio::spawn(async move {
            let mut waiting = Box::pin(parked.acquire());
            assert!(poll_once(waiting.as_mut()).await.is_none());
            let _ = stopped.await;
            waiting.await
        });
        tokio::time::sleep(LEASE / 10).await;
        let last = lock.clone();
        let last = tokio::spawn(async move { last.acquire_for(BOUND).await });
        tokio::time::sleep(LEASE / 10).await;
        drop(holder);
        let guard = last.await.expect("no panic").expect("two grants lapse");
        assert!(!guard.is_lost());
        drop(guard);
        stop.send(()).expect("it waits");
        drop(acquiring);
        drop(parked.await.expect("no panic").expect("it is free again"));
    });
}

#[test]
fn a_process_that_was_stopped_hands_out_no_lost_guard() {
    run(async {
        // The grant lapses between its arrival and the look of who asked.
        let provider = TestProvider::new().with_lease(LEASE);
        let lock = Arc::new(lock_on(&provider, "stopped"));
        for _ in 0..3 {
            let holder = lock.acquire().await.expect("the lock is free");
            let mut waiting = Box::pin(lock.acquire_for(BOUND));
            assert!(poll_once(waiting.as_mut()).await.is_none());
            drop(holder);
            // As a process does that is stopped; when it goes on, its poll may come before the
            // background thread has seen anything.
            std::thread::sleep(LEASE + Duration::from_millis(5));
            let guard = waiting.await.expect("it queues again");
            assert!(!guard.is_lost());
        }
        nothing_held(&provider).await;
    });
}
