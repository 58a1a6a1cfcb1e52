//! An acquisition may be dropped wherever it is, and leaves nothing.

use std::pin::pin;

use lock_tests::poll_once;

use super::Shared;

/// The polls that an acquisition is given: more than any here needs when nothing is in its way.
const POLLS: usize = 50;

pub(crate) async fn dropped_waiter_leaves_nothing(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    for _ in 0..10 {
        let mut waiting = Box::pin(lock.acquire());
        assert!(poll_once(waiting.as_mut()).await.is_none(), "it waits");
    }
    guard.release().await.unwrap();
    fixture.assert_free(&lock).await;
}

pub(crate) async fn dropped_at_every_poll_when_free(fixture: Shared) {
    for polls in 0..POLLS {
        let lock = fixture.lock(format!("lock-{}", polls % 3));
        let mut acquiring = Box::pin(lock.acquire());
        for _ in 0..polls {
            if let Some(granted) = poll_once(acquiring.as_mut()).await {
                drop(granted.unwrap());
                break;
            }
            // Lets whoever works on it get one step further.
            tokio::task::yield_now().await;
        }
        drop(acquiring);
        fixture.assert_free(&lock).await;
    }
}

pub(crate) async fn dropped_at_every_poll_when_held(fixture: Shared) {
    let lock = fixture.lock("lock");
    for polls in 1..POLLS {
        let guard = lock.acquire().await.unwrap();
        {
            let mut waiting = pin!(lock.acquire());
            for _ in 0..polls {
                assert!(poll_once(waiting.as_mut()).await.is_none(), "it waits");
                tokio::task::yield_now().await;
            }
        }
        assert!(!guard.is_lost());
        guard.release().await.unwrap();
        fixture.assert_free(&lock).await;
    }
}

pub(crate) async fn aborted_task(fixture: Shared) {
    let lock = fixture.lock("lock");
    for _ in 0..20 {
        let guard = lock.acquire().await.unwrap();
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        guard.release().await.unwrap();
        fixture.assert_free(&lock).await;
    }
}

/// An acquisition is dropped about when its grant arrives: before it, after it, or with the grant
/// unseen.
pub(crate) async fn dropped_when_just_granted(fixture: Shared) {
    let lock = fixture.lock("lock");
    for round in 0..POLLS {
        let guard = lock.acquire().await.unwrap();
        let mut waiting = Box::pin(lock.acquire());
        assert!(poll_once(waiting.as_mut()).await.is_none(), "it waits");
        let releasing = tokio::spawn(guard.release());
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        drop(waiting);
        releasing.await.unwrap().unwrap();
        fixture.assert_free(&lock).await;
    }
}
