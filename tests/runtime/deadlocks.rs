//! `WouldDeadlock` is told of every wait of a task for itself, and of none for another task.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::testing::TestProvider;
use lock_runtime::{DistributedLock, LockErrorKind, LockProvider, distributed_lock};
use lock_tests::poll_once;
use tokio::task::LocalSet;

use crate::{BOUND, shared};

#[distributed_lock(name = "outer", provider = locks, timeout = "5s")]
async fn holding<T>(
    locks: &Arc<dyn LockProvider>,
    body: impl Future<Output = T>,
) -> Result<T, lock_runtime::LockError> {
    Ok(body.await)
}

type Waiting = std::pin::Pin<Box<dyn Future<Output = Result<(), lock_runtime::LockError>>>>;

/// Runs a future that may not be sent to other threads.
fn here(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("it can be built").block_on(test);
}

#[test]
fn tasks_that_a_body_drives_wait_as_any_other() {
    here(async {
        let locks = shared(TestProvider::new());
        let lock = DistributedLock::on(Arc::clone(&locks), "outer");
        // A set of tasks.
        let tasks = LocalSet::new();
        let waits = lock.clone();
        let task = tasks.spawn_local(async move { waits.acquire_for(BOUND).await.map(drop) });
        let driving = tasks.run_until(async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        });
        holding(&locks, driving).await.expect("the lock is free");
        tasks.await;
        task.await.expect("no panic").expect("its turn comes");
        // A runtime of its own.
        let waits = lock.clone();
        let body = async {
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build();
                    let runtime = runtime.expect("it can be built");
                    let short = Duration::from_millis(20);
                    runtime.block_on(async {
                        let task = tokio::spawn(async move { waits.acquire_for(short).await });
                        task.await.expect("no panic").map(drop)
                    })
                });
                thread.join().expect("no panic")
            })
        };
        let waited = holding(&locks, body).await.expect("the lock is free");
        assert_eq!(waited.unwrap_err().kind(), LockErrorKind::TimedOut);
    });
}

#[test]
fn a_wait_that_began_before_the_body_is_told_in_it() {
    here(async {
        let locks = shared(TestProvider::new());
        let lock = DistributedLock::on(Arc::clone(&locks), "outer");
        let held = lock.acquire().await.expect("the lock is free");
        let early: Rc<RefCell<Option<Waiting>>> = Rc::default();
        let inside = Rc::clone(&early);
        let mut outer = Box::pin(holding(&locks, async move {
            let waiting = inside.borrow_mut().take().expect("it was put there");
            waiting.await
        }));
        assert!(poll_once(outer.as_mut()).await.is_none());
        let waits = lock.clone();
        let mut waiting: Waiting = Box::pin(async move { waits.acquire().await.map(drop) });
        assert!(poll_once(waiting.as_mut()).await.is_none());
        *early.borrow_mut() = Some(waiting);
        drop(held);
        let told = outer.await.expect("its turn").unwrap_err();
        assert_eq!(told.kind(), LockErrorKind::WouldDeadlock);
        drop(lock.acquire_for(BOUND).await.expect("nothing is left"));
    });
}

#[test]
fn a_body_polled_by_a_destructor_of_the_thread_s_data_runs() {
    struct PollsWhenDropped;
    impl Drop for PollsWhenDropped {
        fn drop(&mut self) {
            let locks = shared(lock_runtime::InProcessProvider::new());
            let ran = crate::dropped_at_every_poll::block_on(holding(&locks, async { 7 }));
            RAN.fetch_add(
                ran.expect("it is free"),
                std::sync::atomic::Ordering::SeqCst,
            );
        }
    }
    static RAN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    thread_local! {
        static FIRST: PollsWhenDropped = const { PollsWhenDropped };
    }
    // The data of this thread goes in some order: ours before the library's, and after it.
    std::thread::spawn(|| {
        FIRST.with(|_| {});
        let locks = shared(lock_runtime::InProcessProvider::new());
        crate::dropped_at_every_poll::block_on(holding(&locks, async {})).expect("it is free");
    })
    .join()
    .expect("no panic");
    std::thread::spawn(|| {
        let locks = shared(lock_runtime::InProcessProvider::new());
        crate::dropped_at_every_poll::block_on(holding(&locks, async {})).expect("it is free");
        FIRST.with(|_| {});
    })
    .join()
    .expect("no panic");
    assert_eq!(RAN.load(std::sync::atomic::Ordering::SeqCst), 14);
}
