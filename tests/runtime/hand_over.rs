//! Grants that are passed on inside the process.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{DistributedLock, FencingToken, LockGuard};
use lock_tests::poll_once;
use tokio::sync::mpsc;

use crate::{lock_on, nothing_held, run};

/// Queues this many waiters behind a holder, lets go, and returns the tokens as they come.
async fn tokens_of(lock: &DistributedLock, waiters: usize) -> Vec<FencingToken> {
    let token = |guard: &LockGuard| guard.fencing_token().expect("the provider gives tokens");
    let holder = lock.acquire().await.expect("the lock is free");
    let (sender, mut receiver) = mpsc::unbounded_channel();
    sender.send(token(&holder)).expect("the test waits");
    for _ in 0..waiters {
        let (lock, sender) = (lock.clone(), sender.clone());
        let mut acquiring = Box::pin(async move { lock.acquire().await });
        assert!(poll_once(acquiring.as_mut()).await.is_none());
        tokio::spawn(async move {
            let guard = acquiring.await.expect("the holder releases");
            sender.send(token(&guard)).expect("the test waits");
            guard.release().await.expect("it was held");
        });
    }
    drop((holder, sender));
    let mut tokens = Vec::new();
    while let Some(token) = receiver.recv().await {
        tokens.push(token);
    }
    tokens
}

fn grows_strictly(tokens: &[FencingToken]) -> bool {
    tokens.windows(2).all(|pair| pair[0] < pair[1])
}

#[test]
fn one_call_serves_a_run_of_waiters() {
    run(async {
        let provider = TestProvider::new();
        let tokens = tokens_of(&lock_on(&provider, "run"), 64).await;
        assert_eq!(tokens.len(), 65);
        assert!(grows_strictly(&tokens), "{tokens:?}");
        // One for the holder, and at least one for every 32 waiters; more where a run took its
        // 10 ms before it had served all it could.
        let calls = provider.calls(Operation::Acquire);
        assert!((3..65).contains(&calls), "{calls} calls");
        nothing_held(&provider).await;
    });
}

#[test]
fn a_run_ends_after_32_grants() {
    run(async {
        // As the test above, with nothing to wait for: then the 10 ms do not matter.
        for _ in 0..20 {
            let provider = TestProvider::new();
            tokens_of(&lock_on(&provider, "long"), 96).await;
            if provider.calls(Operation::Acquire) == 4 {
                return;
            }
        }
        panic!("96 waiters never took three runs of 32");
    });
}

#[test]
fn a_provider_that_reserves_no_tokens_is_asked_for_every_grant() {
    run(async {
        let provider = TestProvider::new().without_local_hand_over();
        let tokens = tokens_of(&lock_on(&provider, "each"), 20).await;
        assert!(grows_strictly(&tokens), "{tokens:?}");
        assert_eq!(provider.calls(Operation::Acquire), 21);
    });
}

#[test]
fn a_waiter_with_another_lease_gets_a_grant_of_its_own() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "leases");
        let holder = lock.acquire().await.expect("the lock is free");
        let other = lock.clone().lease(Duration::from_secs(7));
        let mut waiting: Vec<_> = [&lock, &other, &lock]
            .map(|lock| Box::pin(lock.acquire()))
            .into();
        for acquiring in &mut waiting {
            assert!(poll_once(acquiring.as_mut()).await.is_none());
        }
        drop(holder);
        for acquiring in waiting {
            drop(acquiring.await.expect("it is free by and by"));
        }
        assert_eq!(provider.calls(Operation::Acquire), 4);
    });
}

#[test]
fn a_lost_lock_is_not_passed_on() {
    run(async {
        let provider = TestProvider::new();
        let lock = Arc::new(lock_on(&provider, "lost"));
        let holder = lock.acquire().await.expect("the lock is free");
        let waiter = {
            let lock = Arc::clone(&lock);
            tokio::spawn(async move { lock.acquire().await })
        };
        provider.lose("lost");
        // It comes from the server, while the holder still has its guard.
        let next = waiter
            .await
            .expect("no panic")
            .expect("the server says it is free");
        assert!(holder.is_lost());
        assert!(!next.is_lost());
        assert!(provider.is_held("lost"));
        drop(holder);
        assert!(
            provider.is_held("lost"),
            "the lost guard gave back what was not its own"
        );
    });
}

#[test]
fn a_lapsed_lock_is_given_back_when_its_guard_goes_or_the_server_s_lease_ends() {
    run(async {
        let lease = Duration::from_secs(2);
        let provider = TestProvider::new().with_lease(lease);
        provider.delay(Operation::Renew, lease * 10);
        let locks = [lock_on(&provider, "let-go"), lock_on(&provider, "kept")];
        let let_go = locks[0].acquire().await.expect("the lock is free");
        let kept = locks[1].acquire().await.expect("the lock is free");
        // The second of two that share a grant: the first one's end says nothing about its own.
        let let_go = {
            let (first, second) = (locks[0].acquire(), locks[0].acquire());
            let (mut first, mut second) = (Box::pin(first), Box::pin(second));
            assert!(poll_once(first.as_mut()).await.is_none());
            assert!(poll_once(second.as_mut()).await.is_none());
            drop(let_go);
            drop(first.await.expect("it is handed over"));
            let calls = provider.calls(Operation::Acquire);
            let second = second.await.expect("it is passed on");
            assert_eq!(
                provider.calls(Operation::Acquire),
                calls,
                "inside the process"
            );
            second
        };
        let_go.lost().await;
        assert!(
            provider.is_held("let-go"),
            "others are kept away while a body may still run"
        );
        drop(let_go);
        nothing_of(&provider, "let-go").await;
        // The process's own waiters go on without the guard that nobody drops.
        let next = locks[1]
            .acquire_for(lease)
            .await
            .expect("the server's lease has ended");
        assert!(kept.is_lost());
        assert!(!next.is_lost());
    });
}

async fn nothing_of(provider: &TestProvider, name: &str) {
    lock_tests::eventually("it is released", Duration::from_millis(500), || async {
        !provider.is_held(name)
    })
    .await;
}
