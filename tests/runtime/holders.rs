//! Who holds a lock: what the core adds to a provider's answer, and providers that cannot tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, DistributedMultiLock,
    DistributedSemaphore, Grant, Holder, InProcessProvider, LockError, LockErrorKind, LockKind,
    LockName, LockProvider, LockState, Timestamp,
};
use lock_tests::poll_once;

use crate::{lock_on, run};

#[test]
fn errors_name_the_holder_elsewhere() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "order");
        let elsewhere = lock_on(&provider.another_process(), "order");
        let guard = elsewhere.acquire().await.expect("free");
        let refused = lock.acquire_for(Duration::ZERO).await.unwrap_err();
        let expected = "lock `order` is held by another process";
        assert_eq!(refused.to_string(), expected);
        let late = lock
            .acquire_for(Duration::from_millis(20))
            .await
            .unwrap_err();
        let expected = "lock `order` was still held by another process when the timeout passed";
        assert_eq!(late.to_string(), expected);
        // One that only tries, behind a waiter, shares what the server told that one.
        let mut waiting = Box::pin(lock.acquire());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        tokio::time::sleep(Duration::from_millis(20)).await;
        let refused = lock.acquire_for(Duration::ZERO).await.unwrap_err();
        assert_eq!(refused.kind(), LockErrorKind::Contended);
        assert_eq!(refused.holder().map(Holder::label), Some("another process"));
        drop(guard);
        let guard = waiting.await.expect("it is free");
        // Now it is this process, and the lease says since when.
        let refused = lock.acquire_for(Duration::ZERO).await.unwrap_err();
        let holder = refused.holder().expect("it is known");
        assert!(holder.is_this_process() && holder.since().is_some());
        assert!(refused.to_string().contains(") for 0."), "{refused}");
        drop(guard);
    });
}

#[test]
fn other_errors_name_nobody() {
    let error = LockError::new(LockErrorKind::Lost).with_holder(Holder::another_client());
    assert!(error.holder().is_none());
    assert_eq!(error.to_string(), "the lock was lost");
    let error = LockError::new(LockErrorKind::Contended).with_holder(Holder::new("a\u{7}b"));
    assert_eq!(error.to_string(), "the lock is held elsewhere");
    let named = error.with_name("order");
    assert!(!named.to_string().contains('\u{7}'), "{named}");
}

#[test]
fn those_who_wait_inside_are_counted() {
    run(async {
        let provider = Arc::new(InProcessProvider::new());
        let lock = DistributedLock::on(provider.clone(), "order");
        let guard = lock.acquire().await.expect("free");
        let mut first = Box::pin(lock.acquire());
        let mut second = Box::pin(lock.acquire());
        assert!(poll_once(first.as_mut()).await.is_none());
        assert!(poll_once(second.as_mut()).await.is_none());
        assert_eq!(lock.inspect().await.expect("it tells").waiters(), Some(2));
        drop(second);
        assert_eq!(lock.inspect().await.expect("it tells").waiters(), Some(1));
        drop(guard);
        drop(first.await);
        let state = lock.inspect().await.expect("it tells");
        assert!(state.holders().is_empty());
        drop(lock);
        let permits = DistributedSemaphore::on(provider, "order", 3);
        assert_eq!(permits.inspect().await.expect("free").available(), Some(3));
    });
}

/// Answers as a test says.
enum Odd {
    CannotTell,
    Hangs,
    Panics,
    TellsOfManyPermits,
}

impl LockProvider for Odd {
    fn capabilities(&self) -> Capabilities {
        let all = Capabilities::new("odd").with_semaphore();
        let all = all.with_response_timeout(Duration::from_millis(50));
        match self {
            Self::CannotTell => all,
            _ => all.with_holders(),
        }
    }

    fn acquire<'a>(&'a self, asked: &'a AcquireRequest) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async { Ok(Grant::new(asked, Timestamp::now())) })
    }

    fn release<'a>(&'a self, _: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async { Ok(()) })
    }

    fn inspect<'a>(
        &'a self,
        _: &'a LockName,
        _: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        Box::pin(async {
            match self {
                Self::CannotTell => unreachable!("it is not asked"),
                Self::Hangs => std::future::pending().await,
                Self::Panics => panic!("as the test wants it"),
                Self::TellsOfManyPermits => Ok(LockState::new(vec![
                    Holder::another_client().with_permits(u32::MAX),
                    Holder::another_client().with_permits(u32::MAX),
                ])),
            }
        })
    }
}

#[test]
fn a_provider_that_misbehaves_is_no_holder() {
    run(async {
        for (odd, kind, text) in [
            (
                Odd::CannotTell,
                LockErrorKind::Unsupported,
                "`odd` cannot tell who holds a lock",
            ),
            (
                Odd::Hangs,
                LockErrorKind::ProviderUnavailable,
                "no answer within 50ms",
            ),
            (
                Odd::Panics,
                LockErrorKind::ProviderUnavailable,
                "the provider panicked",
            ),
        ] {
            let asked = Instant::now();
            let error = DistributedLock::on(Arc::new(odd), "order").inspect().await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(error.name().map(LockName::as_str), Some("order"));
            assert!(asked.elapsed() < Duration::from_secs(5));
        }
        let permits = DistributedSemaphore::on(Arc::new(Odd::TellsOfManyPermits), "order", 3);
        assert_eq!(
            permits.inspect().await.expect("it tells").available(),
            Some(0)
        );
        let wrong = DistributedLock::on(Arc::new(Odd::Hangs), "");
        let error = wrong.inspect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidName);
    });
}

#[test]
fn a_question_may_be_dropped_at_any_await() {
    run(async {
        let provider = TestProvider::new();
        provider.freeze(true);
        let lock = lock_on(&provider, "order");
        for _ in 0..3 {
            let mut asking = Box::pin(lock.inspect());
            assert!(poll_once(asking.as_mut()).await.is_none());
        }
        provider.freeze(false);
        let state = lock.inspect().await.expect("it tells");
        assert!(state.holders().is_empty());
        assert_eq!(provider.calls(Operation::Inspect), 4);
    });
}

#[test]
fn several_locks_are_told_one_by_one() {
    run(async {
        let provider = Arc::new(InProcessProvider::new());
        let permits = DistributedSemaphore::on(provider.clone(), "calls", 3);
        let locks = DistributedMultiLock::on(provider.clone(), ["b", "a"]).and(permits.taking(2));
        let _guard = locks.acquire().await.expect("free");
        let states = locks.inspect().await.expect("it tells");
        let names: Vec<_> = states.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "calls"]);
        assert!(states.iter().all(|(_, state)| state.holders().len() == 1));
        assert_eq!(states[2].1.available(), Some(1));
    });
}
