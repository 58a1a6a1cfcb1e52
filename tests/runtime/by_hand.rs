//! Bodies that are run by hand, and the signals that tell of the end of a grant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_runtime::testing::TestProvider;
use lock_runtime::{DistributedLock, GrantEnd, InProcessProvider, LockErrorKind};
use lock_tests::{eventually, poll_once};

use crate::{BOUND, lock_on, nothing_held, run, shared};

#[test]
fn a_body_runs_while_the_lock_is_held_and_answers() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "by-hand");
        let seen = provider.clone();
        let body = async move { seen.is_held("by-hand") };
        assert!(lock.run(body).await.expect("the lock is free"));
        nothing_held(&provider).await;
        let answer = lock.run_for(BOUND, async { 7 }).await.expect("it is free");
        assert_eq!(answer, 7);
        assert_eq!(
            lock.try_run(async { 8 }).await.expect("it is free"),
            Some(8)
        );
        let seen = provider.clone();
        let token = lock
            .run_with(async |guard| {
                assert!(seen.is_held(guard.name().as_str()));
                tokio::task::yield_now().await;
                guard.fencing_token()
            })
            .await;
        assert!(token.expect("the lock is free").is_some());
        nothing_held(&provider).await;
    });
}

#[test]
fn nothing_of_a_body_runs_without_the_lock() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "lazy");
        let holder = lock.acquire().await.expect("the lock is free");
        let ran = AtomicBool::new(false);
        let body = || async { ran.store(true, Ordering::Relaxed) };
        assert_eq!(lock.try_run(body()).await.expect("no error"), None);
        let timed_out = lock.run_for(Duration::from_millis(20), body()).await;
        assert_eq!(timed_out.unwrap_err().kind(), LockErrorKind::TimedOut);
        let mut waits = Box::pin(lock.run(body()));
        assert!(poll_once(waits.as_mut()).await.is_none());
        assert!(!ran.load(Ordering::Relaxed));
        drop(holder);
        waits.await.expect("it is free");
        assert!(ran.load(Ordering::Relaxed));
    });
}

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_loss_drops_the_body_in_place() {
    run(async {
        let provider = TestProvider::new();
        let dropped = Arc::new(AtomicBool::new(false));
        let lock = lock_on(&provider, "lost");
        let (server, tell) = (provider.clone(), Dropped(dropped.clone()));
        let body = async move {
            let _tell = tell;
            server.lose("lost");
            std::future::pending::<()>().await;
        };
        assert_eq!(
            lock.run(body).await.unwrap_err().kind(),
            LockErrorKind::Lost
        );
        assert!(dropped.load(Ordering::Relaxed));
        let server = provider.clone();
        let lost = lock.run_with(async |guard| {
            server.lose("lost");
            guard.lost().await;
            std::future::pending::<()>().await;
        });
        assert_eq!(lost.await.unwrap_err().kind(), LockErrorKind::Lost);
    });
}

#[test]
fn the_forms_can_be_spawned() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "spawned");
        let (one, two, three, four) = (lock.clone(), lock.clone(), lock.clone(), lock);
        let tasks = [
            tokio::spawn(async move { one.run(async { 1 }).await.expect("its turn") }),
            tokio::spawn(async move { two.run_for(BOUND, async { 2 }).await.expect("its turn") }),
            tokio::spawn(async move {
                three
                    .run_with(async |guard| {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        assert!(!guard.is_lost());
                        3
                    })
                    .await
                    .expect("its turn")
            }),
            tokio::spawn(async move {
                four.try_run(async { 4 })
                    .await
                    .expect("no error")
                    .unwrap_or(4)
            }),
        ];
        for (number, task) in (1..).zip(tasks) {
            assert_eq!(task.await.expect("no panic"), number);
        }
    });
}

#[test]
fn a_run_in_a_run_of_the_same_lock_is_told() {
    run(async {
        let lock = lock_on(&TestProvider::new(), "nested");
        let inner = lock.clone();
        let nested = lock.run(async move { inner.run(async {}).await });
        let nested = nested.await.expect("the outer one runs");
        assert_eq!(nested.unwrap_err().kind(), LockErrorKind::WouldDeadlock);
    });
}

#[test]
fn the_end_of_a_grant_is_told_in_both_cases() {
    run(async {
        let provider = TestProvider::new();
        for (lock, can_be_lost) in [
            (lock_on(&provider, "ends"), true),
            (
                DistributedLock::on(shared(InProcessProvider::new()), "ends"),
                false,
            ),
        ] {
            let guard = lock.acquire().await.expect("the lock is free");
            let (ended, cloned) = (guard.ended(), guard.ended().clone());
            let watcher = tokio::spawn(ended);
            tokio::task::yield_now().await;
            guard.release().await.expect("it was held");
            assert_eq!(watcher.await.expect("no panic"), GrantEnd::Released);
            assert_eq!(cloned.await, GrantEnd::Released, "also for who asks late");

            let guard = lock.acquire().await.expect("the lock is free");
            let ended = guard.ended();
            drop(guard);
            assert_eq!(ended.await, GrantEnd::Released);

            if can_be_lost {
                let guard = lock.acquire().await.expect("the lock is free");
                let watchers: Vec<_> = (0..100).map(|_| tokio::spawn(guard.ended())).collect();
                provider.lose("ends");
                for watcher in watchers {
                    assert_eq!(watcher.await.expect("no panic"), GrantEnd::Lost);
                }
                assert_eq!(guard.ended().await, GrantEnd::Lost);
            }
        }
    });
}

/// A grant that was passed on inside the process has ended in good order, whatever happens to it
/// later.
#[test]
fn a_later_loss_is_not_the_first_holder_s() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "passed");
        let first = lock.acquire().await.expect("the lock is free");
        let ended = first.ended();
        let mut waiting = Box::pin(lock.acquire());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        drop(first);
        let second = waiting.await.expect("it is passed on");
        provider.lose("passed");
        assert_eq!(second.ended().await, GrantEnd::Lost);
        assert_eq!(ended.await, GrantEnd::Released);
    });
}

/// Tasks that watch grants end with them.
#[test]
fn a_thousand_watchers_leave_with_their_locks() {
    run(async {
        let provider = TestProvider::new();
        let alive = Arc::new(());
        for number in 0..1_000 {
            let lock = lock_on(&provider, &format!("watched:{number}"));
            let guard = lock.acquire().await.expect("the lock is free");
            let (ended, alive) = (guard.ended(), Arc::clone(&alive));
            tokio::spawn(async move {
                ended.await;
                drop(alive);
            });
            drop(guard);
        }
        eventually("no task is left", BOUND, || async {
            Arc::strong_count(&alive) == 1
        })
        .await;
    });
}
