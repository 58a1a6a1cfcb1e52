//! Waiting in the server's queue, and leaving it.

use std::pin::pin;
use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::poll_once;

use crate::common::{BOUND, connected, lock, take, token, with_server};

#[test]
fn waiters_are_served_by_the_server_in_order() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let guard = take(&holder, "order").await;
        let mut waiting = Vec::new();
        for place in 0..5 {
            let provider = server.provider().await;
            waiting.push(tokio::spawn(async move { take(&provider, "order").await }));
            server.until_waiting(place + 1).await;
        }
        let mut last = token(&guard);
        guard.release().await.unwrap();
        for (place, next) in waiting.into_iter().enumerate() {
            let guard = next.await.unwrap();
            assert!(token(&guard) > last, "place {place}");
            last = token(&guard);
            guard.release().await.unwrap();
        }
    });
}

/// 200 waiters of one process are one on the server, and each hand-over a statement or two.
#[test]
fn a_crowd_asks_the_server_once_a_hand_over() {
    with_server(|server| async move {
        const WAITERS: i64 = 200;
        let (holder, provider) = (server.provider().await, server.provider().await);
        let guard = take(&holder, "order").await;
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..WAITERS {
            let provider = provider.clone();
            crowd.spawn(async move { take(&provider, "order").await.release().await.unwrap() });
        }
        server.until_waiting(1).await;
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'";
        assert_eq!(server.locks(false).await, 1);
        let sessions = server.sessions().await;
        assert!(sessions <= 4, "{sessions} sessions");
        let before = server.count(sql).await;
        guard.release().await.unwrap();
        crowd.join_all().await;
        // The server counts a little late, and never too many.
        let asked = server.count(sql).await - before;
        assert!(asked <= 3 * WAITERS, "{asked} transactions");
    });
}

#[test]
fn a_waiter_that_gives_up_leaves_the_queue() {
    with_server(|server| async move {
        let (holder, provider) = (server.provider().await, server.provider().await);
        let guard = take(&holder, "order").await;
        let waiting = lock(&provider, "order");
        let error = waiting
            .acquire_for(Duration::from_millis(300))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut);
        assert_eq!(server.locks(false).await, 0, "gone when it answers");
        for polls in 1..40 {
            let mut acquiring = pin!(waiting.acquire());
            for _ in 0..polls {
                assert!(poll_once(acquiring.as_mut()).await.is_none());
                tokio::task::yield_now().await;
            }
        }
        server.until_waiting(0).await;
        guard.release().await.unwrap();
        server.until_free(BOUND).await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

/// Cancelled about when the grant comes: held by nobody afterwards.
#[test]
fn a_cancellation_that_meets_the_grant_leaves_nothing() {
    with_server(|server| async move {
        let (holder, provider) = (server.provider().await, server.provider().await);
        for round in 0..60_u64 {
            let guard = take(&holder, "order").await;
            let waiting = lock(&provider, "order");
            let acquiring = tokio::spawn(async move { waiting.acquire().await });
            server.until_waiting(1).await;
            let releasing = tokio::spawn(guard.release());
            tokio::time::sleep(Duration::from_micros(round * 20)).await;
            acquiring.abort();
            releasing.await.unwrap().unwrap();
            drop(acquiring.await);
            server.until_free(BOUND).await;
        }
        let sessions = server.sessions().await;
        assert!(sessions <= 6, "{sessions} sessions");
    });
}

/// Without a session of its own, who waits looks now and then.
#[test]
fn waiters_without_a_session_are_served_too() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let provider = connected(server.builder().waiting_sessions(1)).await;
        let names = ["one", "two", "three"];
        let mut guards = Vec::new();
        for name in names {
            guards.push(take(&holder, name).await);
        }
        let mut waiting = tokio::task::JoinSet::new();
        for name in names {
            let provider = provider.clone();
            waiting.spawn(async move { take(&provider, name).await });
        }
        server.until_waiting(1).await;
        let sessions = server.sessions().await;
        assert!(sessions <= 3, "{sessions} sessions");
        for guard in guards {
            guard.release().await.unwrap();
        }
        assert_eq!(waiting.join_all().await.len(), names.len());
    });
}
