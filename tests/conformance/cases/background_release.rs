//! A release whose answer nobody waits for: free at once for this process, and soon for others,
//! even if this process ends.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{LockError, LockMode, LockProvider, distributed_lock};
use lock_tests::{AnyLock, poll_once};
use tokio::runtime::Builder;

use super::Shared;

/// More than a trip to the server, on a loaded machine. A lock that is left behind stays until its
/// lease ends, which is seconds later.
const A_TRIP: Duration = Duration::from_secs(1);

#[distributed_lock(name = "lock", provider = provider, release = "background")]
async fn called(provider: &Arc<dyn LockProvider>) -> Result<(), LockError> {
    Ok(())
}

/// The release and the next request are carried out in order.
pub(crate) async fn free_for_this_process_at_once(fixture: Shared) {
    let lock = fixture.lock("lock").release_in_background();
    for round in 0..100 {
        let guard = lock.try_acquire().await.unwrap();
        let guard = guard.unwrap_or_else(|| panic!("free in round {round}"));
        guard.release().await.unwrap();
    }
    if fixture.mode() == LockMode::Exclusive {
        for _ in 0..100 {
            called(fixture.provider()).await.unwrap();
        }
    }
    // A name after another, so that several releases are under way.
    let locks: Vec<_> = (0..20)
        .map(|number| fixture.lock(format!("lock-{number}")))
        .map(AnyLock::release_in_background)
        .collect();
    for lock in locks.iter().chain(&locks).chain(&locks) {
        let guard = lock.try_acquire().await.unwrap();
        guard
            .expect("free for this process")
            .release()
            .await
            .unwrap();
    }
}

pub(crate) async fn a_waiter_has_it_at_once(fixture: Shared) {
    let lock = fixture.lock("lock").release_in_background();
    for _ in 0..10 {
        let guard = lock.acquire().await.unwrap();
        let mut waiting = pin!(lock.acquire());
        assert!(poll_once(waiting.as_mut()).await.is_none(), "it waits");
        guard.release().await.unwrap();
        let granted = tokio::time::timeout(fixture.bound(), waiting).await;
        let granted = granted.expect("granted within the bound").unwrap();
        fixture.assert_held(&lock).await;
        granted.release().await.unwrap();
    }
    fixture.assert_free(&lock).await;
}

/// The library's thread sees to the release when the runtime is gone on which it began.
pub(crate) async fn outlives_the_runtime(fixture: Shared) {
    let lock = fixture.lock("lock");
    let elsewhere = match fixture.second_provider().await {
        Some(provider) => fixture.lock_on(provider, "lock"),
        None => lock.clone(),
    };
    for _ in 0..10 {
        let lock = lock.clone().release_in_background();
        let other = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let guard = lock.acquire().await.unwrap();
                guard.release().await.unwrap();
            });
        });
        other.join().unwrap();
        fixture.assert_free(&elsewhere).await;
    }
}

/// Processes that end in the moment in which their call returns. Some have held the lock for so
/// long that the provider makes sure of it before it releases.
pub(crate) async fn survives_the_end_of_the_process(fixture: Shared) {
    const PROCESSES: usize = 200;
    const AT_ONCE: usize = 5;
    for batch in 0..PROCESSES / AT_ONCE {
        let hold = [0, 150][batch % 2];
        let ending = ["exit", "kill"][batch / 2 % 2];
        let mut others: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let name = format!("lock-{batch}-{number}");
                let mut other = fixture.probe(&name);
                other.tell(&format!("leave {hold} {ending}"));
                (other, fixture.lock(name))
            })
            .collect();
        for (other, lock) in &mut others {
            other.expect("leaving", fixture.bound()).await;
            other.ended(fixture.bound()).await;
            let left = Instant::now();
            while lock.try_acquire().await.unwrap().is_none() {
                let since = left.elapsed();
                assert!(
                    since < A_TRIP,
                    "held {since:?} after its holder's {ending}, which had held it for {hold} ms"
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
