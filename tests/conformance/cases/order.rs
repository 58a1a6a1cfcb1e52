//! Many tasks hold the lock one at a time, in the order in which they came.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use lock_tests::history::Held;
use lock_tests::{AnyLock, History, boot_nanos, poll_once};
use tokio::task::JoinSet;

use super::Shared;

/// Holds the lock once; the history and a counter that only one task may touch judge that.
async fn hold(lock: &AnyLock, who: String, inside: &AtomicU32, history: &History) {
    let guard = lock.acquire().await.unwrap();
    let from = boot_nanos();
    assert_eq!(
        inside.fetch_add(1, Ordering::SeqCst),
        0,
        "alone in the section"
    );
    tokio::task::yield_now().await;
    assert_eq!(
        inside.fetch_sub(1, Ordering::SeqCst),
        1,
        "alone in the section"
    );
    history.record(Held {
        name: lock.name().to_string(),
        holder: who,
        from,
        until: boot_nanos(),
        token: guard.fencing_token().map(|token| token.get()),
    });
    guard.release().await.unwrap();
}

/// Tasks have a lock of their own each, half of them on a second provider where there can be one.
pub(crate) async fn mutual_exclusion(fixture: Shared) {
    let (inside, history) = (Arc::<AtomicU32>::default(), Arc::<History>::default());
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let provider = match task % 2 {
            0 => None,
            _ => fixture.second_provider().await,
        };
        let provider = provider.unwrap_or_else(|| fixture.provider().clone());
        let (inside, history) = (inside.clone(), history.clone());
        let lock = fixture.lock_on(provider, "lock");
        tasks.spawn(async move {
            for _ in 0..10 {
                hold(&lock, task.to_string(), &inside, &history).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(history.len(), 80);
    history.check();
}

pub(crate) async fn arrival_order(fixture: Shared) {
    const WAITERS: usize = 40;
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for waiter in 0..WAITERS {
        let lock = lock.clone();
        let served = served.clone();
        let mut waiting = Box::pin(async move {
            let guard = lock.acquire().await.unwrap();
            served.lock().unwrap().push(waiter);
            guard.release().await.unwrap();
        });
        // In the queue before the next one comes.
        assert!(poll_once(waiting.as_mut()).await.is_none(), "it waits");
        tasks.spawn(waiting);
    }
    guard.release().await.unwrap();
    tasks.join_all().await;
    assert_eq!(*served.lock().unwrap(), Vec::from_iter(0..WAITERS));
}

pub(crate) async fn hundred_tasks(fixture: Shared) {
    let (inside, history) = (Arc::<AtomicU32>::default(), Arc::<History>::default());
    let lock = fixture.lock("lock");
    let mut tasks = JoinSet::new();
    for task in 0..100 {
        let (lock, inside, history) = (lock.clone(), inside.clone(), history.clone());
        tasks.spawn(async move { hold(&lock, task.to_string(), &inside, &history).await });
    }
    tasks.join_all().await;
    assert_eq!(history.len(), 100);
    history.check();
    fixture.assert_free(&lock).await;
}

/// All of them are held at once, so none waits for another one's name.
pub(crate) async fn hundred_names(fixture: Shared) {
    let all_inside = Arc::new(tokio::sync::Barrier::new(100));
    let mut tasks = JoinSet::new();
    for task in 0..100 {
        let (lock, all_inside) = (fixture.lock(format!("lock-{task}")), all_inside.clone());
        tasks.spawn(async move {
            let guard = lock.acquire().await.unwrap();
            all_inside.wait().await;
            guard.release().await.unwrap();
        });
    }
    tasks.join_all().await;
}
