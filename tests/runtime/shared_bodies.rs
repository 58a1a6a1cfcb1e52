//! Bodies that run while they read, write or have permits: what they may wait for, and what a loss
//! does to them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::__private::{Output, Request};
use lock_runtime::testing::TestProvider;
use lock_runtime::{
    DistributedRwLock, DistributedSemaphore, InProcessProvider, LockError, LockErrorKind, LockName,
    LockProvider,
};
use lock_tests::{poll_once, unique};

use crate::{BOUND, nothing_held, run, shared};

/// What a body has, as the attribute's expansion would ask for it.
#[derive(Clone, Copy)]
enum Has {
    Read,
    Write,
    Permits(u32, u32),
}

/// Runs a body as the attribute does.
async fn within<T: Send>(
    has: Has,
    provider: &Arc<dyn LockProvider>,
    name: &str,
    body: impl Future<Output = T> + Send,
) -> Result<T, LockError> {
    let body = async { Ok(body.await) };
    let body = pin!(Some(body));
    let (output, body) = Output::of(body);
    let request = Request::new("test", LockName::from(name));
    macro_rules! run {
        ($request:expr) => {
            $request
                .timeout(BOUND)
                .on(provider)
                .run(output.keep(), body, Err)
                .await
        };
    }
    match has {
        Has::Read => run!(request.read()),
        Has::Write => run!(request.write()),
        Has::Permits(permits, take) => run!(request.permits(permits, take)),
    }
}

fn on_both<F: Future<Output = ()> + Send + 'static>(
    test: impl Fn(Arc<dyn LockProvider>) -> F + Send + 'static,
) {
    run(async move {
        let provider = TestProvider::new();
        test(shared(provider.clone())).await;
        nothing_held(&provider).await;
        test(shared(InProcessProvider::new())).await;
    });
}

#[test]
fn what_a_body_may_wait_for() {
    on_both(|provider| async move {
        let name = unique();
        let lock = DistributedRwLock::on(Arc::clone(&provider), name.as_str());
        let deadlock = Some(LockErrorKind::WouldDeadlock);
        let inside = async |has| {
            let body = async {
                let read = lock.read().await.err().map(|error| error.kind());
                let write = lock.write().await.err().map(|error| error.kind());
                (read, write)
            };
            within(has, &provider, &name, body).await.unwrap()
        };
        assert_eq!(inside(Has::Read).await, (None, deadlock));
        assert_eq!(inside(Has::Write).await, (deadlock, deadlock));

        let name = unique();
        let permits = DistributedSemaphore::on(Arc::clone(&provider), name.as_str(), 3);
        let body = async {
            let one = permits.acquire().await.err().map(|error| error.kind());
            let two = permits
                .acquire_many(2)
                .await
                .err()
                .map(|error| error.kind());
            let nested = within(Has::Permits(3, 1), &provider, &name, async {
                permits
                    .acquire_many(1)
                    .await
                    .err()
                    .map(|error| error.kind())
            });
            (one, two, nested.await.unwrap())
        };
        let seen = within(Has::Permits(3, 2), &provider, &name, body).await;
        assert_eq!(seen.unwrap(), (None, deadlock, deadlock));
    });
}

/// Begins to write in a task of its own, and waits until it keeps new readers out.
async fn writer_waits(lock: &DistributedRwLock) -> tokio::task::JoinHandle<()> {
    let waits = lock.clone();
    let writer = tokio::spawn(async move { drop(waits.write().await.unwrap()) });
    lock_tests::eventually("a writer waits", BOUND, || async {
        let tries = lock.clone();
        // A task of its own holds nothing, as other callers.
        let read = tokio::spawn(async move { tries.try_read().await.unwrap() });
        read.await.unwrap().is_none()
    })
    .await;
    writer
}

#[test]
fn a_nested_read_joins_past_a_writer_who_waits() {
    on_both(|provider| async move {
        let name = unique();
        let lock = DistributedRwLock::on(Arc::clone(&provider), name.as_str());
        let body = async {
            let writer = writer_waits(&lock).await;
            // Longer than the window, so that only what is held here counts.
            tokio::time::sleep(Duration::from_millis(15)).await;
            let by_hand = lock.read().await.unwrap();
            let nested = within(Has::Read, &provider, &name, async { 7 }).await;
            drop(by_hand);
            (nested.unwrap(), writer)
        };
        let seen = tokio::time::timeout(BOUND / 4, within(Has::Read, &provider, &name, body));
        let (seen, writer) = seen.await.expect("no wait for itself").unwrap();
        assert_eq!(seen, 7);
        writer.await.unwrap();
    });
}

#[test]
fn a_read_that_waited_before_the_body_joins_in_it() {
    on_both(|provider| async move {
        let name = unique();
        let lock = DistributedRwLock::on(Arc::clone(&provider), name.as_str());
        let mut writer = None;
        let body = async {
            writer = Some(writer_waits(&lock).await);
            let waits = lock.clone();
            let mut early = Box::pin(async move { waits.read().await });
            // Polled outside of every body.
            let early = tokio::spawn(async move {
                assert!(poll_once(early.as_mut()).await.is_none());
                Some(early)
            });
            let mut early = early.await.unwrap().unwrap();
            drop(early.as_mut().await.unwrap());
        };
        let seen = tokio::time::timeout(BOUND / 4, within(Has::Read, &provider, &name, body));
        seen.await.expect("no wait for itself").unwrap();
        writer.unwrap().await.unwrap();
    });
}

#[test]
fn a_loss_drops_every_body_that_reads() {
    run(async {
        let provider = TestProvider::new();
        let locks = shared(provider.clone());
        let mut bodies = Vec::new();
        for _ in 0..5 {
            let locks = Arc::clone(&locks);
            bodies.push(tokio::spawn(async move {
                within(Has::Read, &locks, "bodies", std::future::pending::<()>()).await
            }));
        }
        lock_tests::eventually("all read", BOUND, || async { provider.is_held("bodies") }).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(provider.holders("bodies"), 1);
        provider.lose("bodies");
        for body in bodies {
            let ended = tokio::time::timeout(BOUND / 4, body)
                .await
                .expect("it is dropped");
            assert_eq!(ended.unwrap().unwrap_err().kind(), LockErrorKind::Lost);
        }
        nothing_held(&provider).await;
    });
}
