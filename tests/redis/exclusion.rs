//! Clients that do `SET NX PX` and compare-and-delete on the same key exclude us, and we them.

use std::pin::pin;
use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::{eventually, poll_once};

use crate::common::{BOUND, connected, lock, take, with_server};

#[test]
fn the_key_is_a_plain_string_with_a_lease() {
    with_server(|server| async move {
        let builder = server
            .builder()
            .key_prefix("App:")
            .lease(Duration::from_secs(20));
        let provider = connected(builder).await;
        let _guard = take(&provider, "order").await;
        let owner = server.raw.get("App:order").await.expect("the key is there");
        let parts: Vec<_> = owner.split(':').collect();
        assert_eq!((parts[0], parts.len()), ("lk1", 4), "{owner}");
        assert_eq!(parts[2], std::process::id().to_string());
        let left: u64 = server.raw.ask("PTTL App:order").await;
        assert!((10_000..=20_000).contains(&left), "{left}");
    });
}

#[test]
fn plain_set_nx_and_we_exclude_each_other() {
    with_server(|server| async move {
        let provider = server.provider().await;
        assert!(server.raw.set_nx("order", "foreign").await);
        assert!(
            lock(&provider, "order")
                .try_acquire()
                .await
                .unwrap()
                .is_none()
        );
        server.raw.ask::<u8>("DEL order").await;
        let guard = lock(&provider, "order")
            .try_acquire()
            .await
            .unwrap()
            .expect("free");
        assert!(!server.raw.set_nx("order", "foreign").await);
        guard.release().await.unwrap();
        assert!(server.raw.set_nx("order", "foreign").await);
    });
}

#[test]
fn a_foreign_holder_is_waited_for() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        assert!(server.raw.set_nx("order", "foreign").await);
        let waiting = tokio::spawn(async move { take(&provider, "order").await });
        server.raw.until_waiting("order", 1).await;
        server.raw.ask::<u8>("DEL order").await;
        let freed = Instant::now();
        waiting.await.unwrap().release().await.unwrap();
        // Polls come every 25 to 125 ms; the rest is the machine's.
        assert!(
            freed.elapsed() < Duration::from_secs(1),
            "{:?}",
            freed.elapsed()
        );
    });
}

#[test]
fn only_the_head_of_the_queue_polls() {
    with_server(|server| async move {
        assert!(server.raw.set_nx("order", "foreign").await);
        let mut waiting = Vec::new();
        for count in 1..=4 {
            let provider = server.provider_with_long_lease().await;
            waiting.push(tokio::spawn(async move { take(&provider, "order").await }));
            server.raw.until_waiting("order", count).await;
        }
        let before = server.raw.info("total_commands_processed").await;
        let start = Instant::now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        // A script counts with its inner commands, at most eleven here; one looks at most every
        // 18 ms. Four would look four times as often.
        let commands = server.raw.info("total_commands_processed").await - before;
        let looks = start.elapsed().as_millis() as u64 / 18;
        assert!(
            commands > 20 && commands < looks * 11,
            "{commands} commands"
        );
        server.raw.ask::<u8>("DEL order").await;
        for waiter in waiting {
            waiter.await.unwrap().release().await.unwrap();
        }
    });
}

#[test]
fn the_next_head_takes_over_the_polling() {
    with_server(|server| async move {
        assert!(server.raw.set_nx("order", "foreign").await);
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let first = tokio::spawn(async move { take(&first, "order").await });
        server.raw.until_waiting("order", 1).await;
        let second = tokio::spawn(async move { take(&second, "order").await });
        server.raw.until_waiting("order", 2).await;
        first.abort();
        server.raw.until_waiting("order", 1).await;
        server.raw.ask::<u8>("DEL order").await;
        let freed = Instant::now();
        second.await.unwrap().release().await.unwrap();
        assert!(
            freed.elapsed() < Duration::from_secs(1),
            "{:?}",
            freed.elapsed()
        );
    });
}

#[test]
fn anothers_lock_is_not_released() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let guard = take(&provider, "order").await;
        server.raw.ask::<u8>("DEL order").await;
        assert!(server.raw.set_nx("order", "foreign").await);
        assert_eq!(
            guard.release().await.unwrap_err().kind(),
            LockErrorKind::Lost
        );
        assert_eq!(server.raw.get("order").await.as_deref(), Some("foreign"));
    });
}

#[test]
fn anothers_lock_is_not_passed_on() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let guard = take(&provider, "order").await;
        // A task of the same process, which gets what the guard gives up.
        let order = lock(&provider, "order");
        let mut waiting = pin!(order.acquire_for(BOUND));
        assert!(poll_once(waiting.as_mut()).await.is_none());
        server.raw.ask::<u8>("DEL order").await;
        assert!(server.raw.set_nx("order", "foreign").await);
        drop(guard);
        server.raw.until_waiting("order", 1).await;
        assert_eq!(server.raw.get("order").await.as_deref(), Some("foreign"));
        server.raw.ask::<u8>("DEL order").await;
        waiting.await.unwrap().release().await.unwrap();
    });
}

#[test]
fn another_owner_is_a_loss_at_the_next_renewal() {
    with_server(|server| async move {
        let provider = connected(server.builder().lease(Duration::from_secs(3))).await;
        let guard = take(&provider, "order").await;
        server.raw.ask::<u8>("DEL order").await;
        assert!(server.raw.set_nx("order", "foreign").await);
        let stolen = Instant::now();
        guard.lost().await;
        assert!(
            stolen.elapsed() < Duration::from_millis(2_500),
            "{:?}",
            stolen.elapsed()
        );
        assert_eq!(server.raw.get("order").await.as_deref(), Some("foreign"));
        assert!(
            server.raw.ask::<u64>("PTTL order").await > 50_000,
            "and is not extended"
        );
    });
}

#[test]
fn a_renewal_creates_no_key() {
    with_server(|server| async move {
        let provider = connected(server.builder().lease(Duration::from_secs(1))).await;
        let guard = take(&provider, "order").await;
        server.raw.ask::<u8>("DEL order").await;
        guard.lost().await;
        assert_eq!(server.raw.get("order").await, None);
        // Nor does whatever follows a loss.
        drop(guard);
        let again = take(&provider, "order").await;
        again.release().await.unwrap();
        assert_eq!(server.raw.get("order").await, None);
    });
}

#[test]
fn a_lock_is_renewed_while_it_is_held() {
    with_server(|server| async move {
        let provider = connected(server.builder().lease(Duration::from_millis(500))).await;
        let guard = take(&provider, "order").await;
        let until = Instant::now() + Duration::from_millis(2_000);
        while Instant::now() < until {
            assert!(!guard.is_lost());
            assert!(server.raw.get("order").await.is_some());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        guard.release().await.unwrap();
    });
}

#[test]
fn no_key_lives_for_ever() {
    with_server(|server| async move {
        let first = connected(server.builder().lease(Duration::from_secs(1))).await;
        let second = connected(server.builder().lease(Duration::from_secs(2))).await;
        let guard = take(&first, "order").await;
        let waiting = tokio::spawn(async move { take(&second, "order").await });
        server.raw.until_waiting("order", 1).await;
        let keys: Vec<String> = server.raw.ask("KEYS *").await;
        assert_eq!(keys.len(), 3, "{keys:?}");
        for key in &keys {
            assert!(
                server.raw.ask::<i64>(&format!("PTTL {key}")).await > 0,
                "{key}"
            );
        }
        guard.release().await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
        eventually("only the counter is left", BOUND, || async {
            server.raw.ask::<Vec<String>>("KEYS *").await == ["lk1:fence"]
        })
        .await;
        assert!(server.raw.ask::<i64>("PTTL lk1:fence").await > 7 * 24 * 3_600_000);
    });
}
