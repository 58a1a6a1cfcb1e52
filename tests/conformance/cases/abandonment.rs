//! A guard may end anywhere, and its lock is released.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lock_tests::{AnyGuard, poll_once};
use tokio::runtime::{Builder, Runtime};

use super::Shared;

fn other_runtime() -> Runtime {
    // Without timers: nothing of the library may need the caller's.
    Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap()
}

pub(crate) async fn dropped_on_a_plain_thread(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    std::thread::spawn(move || drop(guard)).join().unwrap();
    fixture.assert_free(&lock).await;
}

pub(crate) async fn dropped_in_a_panic(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    let panicked = std::thread::spawn(move || {
        catch_unwind(AssertUnwindSafe(|| {
            let _guard = guard;
            std::panic::resume_unwind(Box::new("with the lock held"));
        }))
        .is_err()
    });
    assert!(panicked.join().unwrap());
    fixture.assert_free(&lock).await;
}

pub(crate) async fn dropped_in_a_thread_local(fixture: Shared) {
    thread_local! {
        static KEPT: RefCell<Option<AnyGuard>> = const { RefCell::new(None) };
    }
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    std::thread::spawn(move || KEPT.set(Some(guard)))
        .join()
        .unwrap();
    fixture.assert_free(&lock).await;
}

pub(crate) async fn dropped_with_its_runtime(fixture: Shared) {
    let lock = fixture.lock("lock");
    for _ in 0..10 {
        let runtime = other_runtime();
        let (sender, held) = tokio::sync::oneshot::channel();
        let task_lock = lock.clone();
        runtime.spawn(async move {
            let _guard = task_lock.acquire().await.unwrap();
            sender.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        held.await.unwrap();
        fixture.assert_held(&lock).await;
        runtime.shutdown_background();
        fixture.assert_free(&lock).await;
    }
}

pub(crate) async fn waiter_dropped_with_its_runtime(fixture: Shared) {
    let lock = fixture.lock("lock");
    for _ in 0..10 {
        let guard = lock.acquire().await.unwrap();
        let runtime = other_runtime();
        let (sender, waits) = tokio::sync::oneshot::channel();
        let task_lock = lock.clone();
        runtime.spawn(async move {
            let mut waiting = Box::pin(task_lock.acquire());
            assert!(poll_once(waiting.as_mut()).await.is_none());
            sender.send(()).unwrap();
            let _guard = waiting.await;
            std::future::pending::<()>().await;
        });
        waits.await.unwrap();
        runtime.shutdown_background();
        guard.release().await.unwrap();
        fixture.assert_free(&lock).await;
    }
}

/// The guard outlives the runtime on which it was acquired.
pub(crate) async fn released_after_its_runtime(fixture: Shared) {
    let lock = fixture.lock("lock");
    let runtime = other_runtime();
    let task_lock = lock.clone();
    let guard = runtime
        .spawn(async move { task_lock.acquire().await.unwrap() })
        .await
        .unwrap();
    runtime.shutdown_background();
    fixture.assert_held(&lock).await;
    assert!(!guard.is_lost());
    guard.release().await.unwrap();
    fixture.assert_free(&lock).await;
}
