//! Futures that are polled k times and then dropped, for every k until they complete.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider, entries_under};
use lock_runtime::{
    DistributedLock, FileProvider, InProcessProvider, LockError, LockProvider, distributed_lock,
};
use lock_tests::{Scratch, eventually, unique};

use crate::groups::Grouping;
use crate::{BOUND, run, shared};

/// An executor of a few lines, which is all that the library needs.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Polls at most `polls` times, each time after being woken. `true` if it completed.
pub(crate) async fn polled<T>(mut future: Pin<&mut impl Future<Output = T>>, polls: usize) -> bool {
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Runs `make`'s future with 0, 1, 2, … polls until it completes; after each, the lock must be
/// free and its key forgotten.
async fn at_every_poll<T, F: Future<Output = T>>(
    provider: &Arc<dyn LockProvider>,
    make: impl Fn(String) -> F,
) {
    for polls in 0.. {
        assert!(polls < 50, "it never completes");
        let name = unique();
        let completed = polled(pin!(make(name.clone())), polls).await;
        let lock = DistributedLock::on(Arc::clone(provider), name.as_str());
        let guard = lock
            .acquire_for(BOUND)
            .await
            .expect("the lock is free soon");
        guard.release().await.expect("it was held");
        drop(lock);
        eventually("the key is forgotten", BOUND, || async {
            entries_under(&name) == 0
        })
        .await;
        if completed {
            assert!(polls > 0);
            return;
        }
    }
}

#[distributed_lock(name = name, provider = provider, timeout = "5s", max_hold = "10s")]
async fn annotated(provider: &Arc<dyn LockProvider>, name: String) -> Result<(), LockError> {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[distributed_lock(name = name, provider = provider, release = "background")]
async fn not_waited_for(provider: &Arc<dyn LockProvider>, name: String) -> Result<(), LockError> {
    tokio::task::yield_now().await;
    Ok(())
}

async fn every_future(provider: Arc<dyn LockProvider>) {
    at_every_poll(&provider, |name| {
        let lock = DistributedLock::on(Arc::clone(&provider), name);
        async move { lock.acquire().await }
    })
    .await;
    at_every_poll(&provider, |name| {
        let lock = DistributedLock::on(Arc::clone(&provider), name);
        async move { lock.acquire().await?.release().await }
    })
    .await;
    at_every_poll(&provider, |name| {
        let lock = DistributedLock::on(Arc::clone(&provider), name).release_in_background();
        async move { lock.acquire().await?.release().await }
    })
    .await;
    at_every_poll(&provider, |name| annotated(&provider, name)).await;
    at_every_poll(&provider, |name| not_waited_for(&provider, name)).await;
    // The same behind a holder that lets go while the future waits.
    at_every_poll(&provider, |name| {
        let lock = DistributedLock::on(Arc::clone(&provider), name.as_str());
        let provider = Arc::clone(&provider);
        async move {
            let holder = lock.acquire().await?;
            let mut waiting = pin!(annotated(&provider, name));
            let waits = lock_tests::poll_once(waiting.as_mut()).await.is_none();
            assert!(waits, "somebody holds the lock");
            drop(holder);
            waiting.await
        }
    })
    .await;
}

#[test]
fn in_process() {
    run(every_future(shared(InProcessProvider::new())));
}

#[test]
fn file() {
    run(async {
        let scratch = Scratch::new();
        every_future(shared(FileProvider::new(scratch.path()))).await;
    });
}

#[test]
fn test_provider() {
    run(async {
        let provider = TestProvider::new();
        every_future(shared(provider.clone())).await;
        crate::nothing_held(&provider).await;
        // With an answer that takes a while, so that there are more polls.
        provider.delay(Operation::Release, Duration::from_millis(2));
        every_future(shared(provider.clone())).await;
        crate::nothing_held(&provider).await;
    });
}

#[test]
fn in_groups() {
    run(async {
        let provider = Grouping::of_size_answering(64);
        every_future(shared(Arc::clone(&provider))).await;
        crate::nothing_held(&provider.inner).await;
        let delay = Duration::from_millis(2);
        provider.inner.delay(Operation::Acquire, delay);
        provider.inner.delay(Operation::Release, delay);
        every_future(shared(Arc::clone(&provider))).await;
        crate::nothing_held(&provider.inner).await;
    });
}
