//! What acquisitions of shared kinds leave behind: nothing, wherever they are dropped.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider, entries_under};
use lock_runtime::{
    BoxFuture, Capabilities, DistributedRwLock, DistributedSemaphore, Grant, InProcessProvider,
    LockError, LockErrorKind, LockProvider,
};
use lock_tests::{eventually, poll_once, unique};

use crate::groups::Grouping;
use crate::own_process::in_own_process;
use crate::{BOUND, nothing_held, run, shared};

/// Polls at most `polls` times, each time after being woken. `true` if it completed.
async fn polled<T>(mut future: Pin<&mut impl Future<Output = T>>, polls: usize) -> bool {
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

/// Runs `make`'s future with 0, 1, 2, … polls until it completes. After each, what `all` takes must
/// be free and the key forgotten.
async fn at_every_poll<T, F: Future<Output = T>, A: Future<Output = ()>>(
    make: impl Fn(String) -> F,
    all: impl Fn(String) -> A,
) {
    for polls in 0.. {
        assert!(polls < 60, "it never completes");
        let name = unique();
        let completed = polled(pin!(make(name.clone())), polls).await;
        all(name.clone()).await;
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

async fn every_future(provider: Arc<dyn LockProvider>) {
    let rw = |name: String| DistributedRwLock::on(Arc::clone(&provider), name);
    let permits = |name: String| DistributedSemaphore::on(Arc::clone(&provider), name, 3);
    let whole = |name| {
        let lock = rw(name);
        async move { drop(lock.write_for(BOUND).await.expect("it is free soon")) }
    };
    let three = |name| {
        let permits = permits(name);
        async move {
            let all = permits.acquire_many_for(3, BOUND).await;
            drop(all.expect("all are free soon"));
        }
    };
    let read = |name| {
        let lock = rw(name);
        async move { lock.read().await?.release().await }
    };
    at_every_poll(read, whole).await;
    let write = |name| {
        let lock = rw(name);
        async move { lock.write().await?.release().await }
    };
    at_every_poll(write, whole).await;
    let two = |name| {
        let permits = permits(name);
        async move { permits.acquire_many(2).await?.release().await }
    };
    at_every_poll(two, three).await;
    // After the window, so that the provider is asked whether to share.
    let probe = |name| {
        let lock = rw(name);
        async move {
            let first = lock.read().await?;
            tokio::time::sleep(Duration::from_millis(11)).await;
            let second = lock.read().await?;
            first.release().await?;
            second.release().await
        }
    };
    at_every_poll(probe, whole).await;
    // Behind a writer, and behind a reader.
    let behind = |name| {
        let lock = rw(name);
        async move {
            let writes = lock.write().await?;
            let mut reading = Box::pin(lock.read());
            let mut writing = Box::pin(lock.write());
            assert!(poll_once(reading.as_mut()).await.is_none());
            assert!(poll_once(writing.as_mut()).await.is_none());
            drop(writes);
            drop(reading.await?);
            writing.await?.release().await
        }
    };
    at_every_poll(behind, whole).await;
    let behind_two = |name| {
        let permits = permits(name);
        async move {
            let two = permits.acquire_many(2).await?;
            let mut acquiring = Box::pin(permits.acquire_many(2));
            assert!(poll_once(acquiring.as_mut()).await.is_none());
            drop(two);
            acquiring.await?.release().await
        }
    };
    at_every_poll(behind_two, three).await;
}

#[test]
fn dropped_at_every_poll_in_process() {
    run(every_future(shared(InProcessProvider::new())));
}

#[test]
fn dropped_at_every_poll() {
    run(async {
        let provider = TestProvider::new();
        every_future(shared(provider.clone())).await;
        nothing_held(&provider).await;
        for operation in [Operation::Acquire, Operation::Release, Operation::MayShare] {
            provider.delay(operation, Duration::from_millis(2));
        }
        every_future(shared(provider.clone())).await;
        nothing_held(&provider).await;
    });
}

#[test]
fn dropped_at_every_poll_in_groups() {
    run(async {
        let provider = Grouping::of_size_answering(64);
        every_future(shared(Arc::clone(&provider))).await;
        nothing_held(&provider.inner).await;
    });
}

/// A provider as they were before there were other kinds than mutexes.
struct Plain(TestProvider);

impl LockProvider for Plain {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("plain").with_lease(Duration::from_secs(30))
    }

    fn acquire<'a>(
        &'a self,
        request: &'a lock_runtime::AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.acquire(request)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }
}

#[test]
fn what_a_provider_cannot_do_is_refused_at_once() {
    run(async {
        let inner = TestProvider::new();
        inner.freeze(true);
        let plain = shared(Plain(inner.clone()));
        let lock = DistributedRwLock::on(Arc::clone(&plain), "plain");
        let permits = DistributedSemaphore::on(plain, "plain-permits", 2);
        for (error, detail) in [
            (
                lock.read().await.unwrap_err(),
                "`plain` has no reader–writer locks",
            ),
            (
                lock.try_write().await.unwrap_err(),
                "`plain` has no reader–writer locks",
            ),
            (
                permits.acquire().await.unwrap_err(),
                "`plain` has no semaphores",
            ),
            (
                permits.acquire_many(2).await.unwrap_err(),
                "`plain` has no semaphores",
            ),
        ] {
            assert_eq!(error.kind(), LockErrorKind::Unsupported);
            assert!(error.to_string().contains(detail), "{error}");
        }
        assert_eq!(inner.calls(Operation::Acquire), 0);
    });
}

#[test]
fn a_grant_that_is_not_taken_goes_on() {
    run(async {
        let provider = TestProvider::new();
        let lock = DistributedRwLock::on(shared(provider.clone()), "untaken");
        let first = lock.write().await.unwrap();
        let mut kept = Box::pin(lock.read_for(Duration::from_millis(200)));
        assert!(poll_once(kept.as_mut()).await.is_none());
        let mut writing = Box::pin(lock.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        drop(first);
        // `kept` is granted and not polled.
        drop(
            tokio::time::timeout(BOUND / 4, writing)
                .await
                .expect("it goes on")
                .unwrap(),
        );
        drop(kept);
        nothing_held(&provider).await;
    });
}

#[test]
fn shutdown_ends_what_is_held() {
    in_own_process("shared_leftovers::shutdown_ends_what_is_held", &[], || {
        run(async {
            let provider = TestProvider::new();
            let locks = shared(provider.clone());
            let lock = DistributedRwLock::on(Arc::clone(&locks), "read");
            let permits = DistributedSemaphore::on(locks, "permits", 2);
            let read = [lock.read().await.unwrap(), lock.read().await.unwrap()];
            let both = permits.acquire_many(2).await.unwrap();
            let mut waiting = Box::pin(permits.acquire());
            assert!(poll_once(waiting.as_mut()).await.is_none());
            assert_eq!(lock_runtime::testing::keys_in_use(), 2);
            lock_runtime::shutdown().await;
            assert!(read.iter().all(|guard| guard.is_lost()));
            assert!(both.is_lost());
            let refused = waiting.await.unwrap_err();
            assert_eq!(refused.kind(), LockErrorKind::ProviderUnavailable);
            drop((read, both));
            nothing_held(&provider).await;
            eventually("nothing is in use", BOUND, || async {
                lock_runtime::testing::keys_in_use() == 0
            })
            .await;
        });
    });
}
