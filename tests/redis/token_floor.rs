//! Tokens go on where another provider's ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lock_runtime::{LockErrorKind, LockGuard, LockMode, LockProvider, RedisProvider};

use crate::common::{BOUND, DEADLINE, connected, enter, lock, permits, take, with_server};

/// A floor where PostgreSQL's tokens are, and so above every clock.
const FLOOR: u64 = 2_343_400_000_000_000;

fn token(guard: &LockGuard) -> u64 {
    guard.fencing_token().expect("a token").get()
}

/// Checks that the token is higher than any before.
fn grows(last: &AtomicU64, guard: &LockGuard, when: &str) {
    let before = last.fetch_max(token(guard), Ordering::Relaxed);
    assert!(
        token(guard) > before,
        "{when}: {} after {before}",
        token(guard)
    );
}

#[test]
fn tokens_of_readers_and_writers_are_above_it() {
    with_server(|server| async move {
        let provider = connected(server.builder().token_floor(FLOOR)).await;
        for lost in [false, true] {
            for mode in [LockMode::Read, LockMode::Write, LockMode::Read] {
                if lost {
                    server.raw.count("DEL lk1:fence").await;
                }
                let grant = enter(&provider, "order", mode).await;
                assert!(grant.token().expect("a token").get() > FLOOR);
                provider.release(&grant).await.unwrap();
            }
            let permits = enter(&provider, "permits", permits(3, 2)).await;
            assert!(permits.token().is_none());
            provider.release(&permits).await.unwrap();
        }
    });
}

#[test]
fn no_token_is_given_up_to_the_floor() {
    with_server(|server| async move {
        let by_builder = connected(server.builder().token_floor(FLOOR)).await;
        let by_url = format!("{}?token_floor={}", server.process.url(), FLOOR + 1_000);
        let by_url = connected(RedisProvider::builder(by_url)).await;
        // What the builder says wins.
        let lower = format!("{}?token_floor=1", server.process.url());
        let lower = connected(RedisProvider::builder(lower).token_floor(FLOOR)).await;
        let mut last = FLOOR + 1_000;
        for provider in [&by_url, &by_builder, &lower, &by_url] {
            let guard = take(provider, "order").await;
            assert!(token(&guard) > last, "{} after {last}", token(&guard));
            last = token(&guard);
            let waiter = by_builder.clone();
            let waiting = tokio::spawn(async move { take(&waiter, "order").await });
            if !std::sync::Arc::ptr_eq(provider, &by_builder) {
                server.raw.until_waiting("order", 1).await;
            }
            guard.release().await.unwrap();
            let handed = waiting.await.unwrap();
            assert!(token(&handed) > last, "{} after {last}", token(&handed));
            last = token(&handed);
            handed.release().await.unwrap();
        }
        // One below the clock changes nothing.
        server.raw.ask::<u8>("DEL lk1:fence").await;
        let plain = connected(server.builder().token_floor(1_000_000)).await;
        let guard = take(&plain, "order").await;
        assert!(token(&guard) < server.clock().await);
    });
}

#[test]
fn a_lost_counter_gives_no_token_up_to_the_floor() {
    with_server(|mut server| async move {
        let long = |floor: u64| {
            let builder = server.builder().lease(Duration::from_secs(600));
            builder.token_floor(floor)
        };
        let (first, second) = (connected(long(FLOOR)).await, connected(long(FLOOR)).await);
        let last = std::sync::Arc::new(AtomicU64::new(FLOOR));
        for lost in ["DEL lk1:fence", "SET lk1:fence 5", "GETDEL lk1:fence"] {
            server.raw.ask::<redis::Value>(lost).await;
            let tried = lock(&first, "order").try_acquire().await.unwrap();
            let held = tried.expect("free");
            grows(&last, &held, lost);
            // Handed over, to another process and to one's own.
            let waiting: Vec<_> = [&second, &second, &first]
                .into_iter()
                .map(|waiter| {
                    let (waiter, last) = (waiter.clone(), last.clone());
                    tokio::spawn(async move {
                        let guard = take(&waiter, "order").await;
                        grows(&last, &guard, "handed over");
                        guard.release().await.unwrap();
                    })
                })
                .collect();
            server.raw.until_waiting("order", 1).await;
            server.raw.ask::<redis::Value>(lost).await;
            held.release().await.unwrap();
            for waiting in waiting {
                waiting.await.unwrap();
            }
            server.raw.until_gone("order", BOUND).await;
        }
        server.process.restart_empty();
        let guard = lock(&first, "order").acquire_for(BOUND).await.unwrap();
        grows(&last, &guard, "restarted without data");
    });
}

#[test]
fn floors_that_cannot_be_kept_are_refused() {
    lock_tests::run(DEADLINE, async {
        for (url, expected) in [
            ("redis://localhost?token_floor=7000000000000000", "below 7"),
            (
                "redis://localhost?token_floor=18446744073709551615",
                "below 7",
            ),
            ("redis://localhost?token_floor=-1", "a whole number for"),
            ("redis://localhost?token_floor=1e3", "a whole number for"),
            ("redis://localhost?token_floor=", "a whole number for"),
        ] {
            let error = RedisProvider::connect(url).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let builder = RedisProvider::builder("redis://localhost").token_floor(u64::MAX);
        let error = builder.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    });
}
