//! Servers that restart, with their data or without, and clients that wait until they have run for
//! a while.

use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::redis::RedisOptions;

use crate::common::{DEADLINE, Raw, Server, connected, lock, take, with_server};
use crate::network::{builder_behind, proxy_of, swallow_all};

const LEASE: Duration = Duration::from_secs(5);

/// The holder hears nothing, and counts on what is left of its lease. The server has forgotten it.
#[test]
fn a_restart_without_data_grants_a_lock_twice_unless_there_is_a_delay() {
    with_server(|mut server| async move {
        for delay in [Duration::ZERO, LEASE] {
            let proxy = proxy_of(&server).await;
            let first = connected(builder_behind(&proxy).lease(LEASE)).await;
            let guard = take(&first, "order").await;
            swallow_all(&proxy);
            server.process.restart_empty();
            let second = connected(server.builder().restart_delay(delay)).await;
            let next = take(&second, "order").await;
            let twice = !guard.is_lost();
            assert_eq!(twice, delay.is_zero(), "with a delay of {delay:?}");
            next.release().await.unwrap();
        }
    });
}

/// A server that started just before its clock's second turned says at once that it is a second
/// old.
#[test]
fn a_delay_is_not_shorter_for_a_server_that_started_late_in_a_second() {
    with_server(|mut server| async move {
        let delay = Duration::from_secs(3);
        let until_late = (1_900_000 - server.clock().await % 1_000_000) % 1_000_000;
        tokio::time::sleep(Duration::from_micros(until_late)).await;
        let before_its_start = Instant::now();
        server.process.restart_empty();
        tokio::time::sleep(Duration::from_millis(150)).await;
        let provider = connected(server.builder().restart_delay(delay)).await;
        take(&provider, "order").await.release().await.unwrap();
        let age = before_its_start.elapsed();
        assert!(age >= delay, "granted after {age:?}");
    });
}

#[test]
fn until_the_delay_is_over_who_waits_waits_and_who_tries_is_told_why() {
    with_server(|mut server| async move {
        let delay = Duration::from_secs(3);
        let provider = connected(server.builder().restart_delay(delay)).await;
        for round in 0..2 {
            let error = lock(&provider, "order").try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            assert!(error.to_string().contains("restart_delay"), "{error}");
            let error = lock(&provider, "order")
                .acquire_for(Duration::from_millis(100))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            let waiter = lock(&provider, "order");
            let guard = waiter.acquire().await.unwrap();
            let raw = Raw::connect(&server.process.url()).await;
            assert!(raw.info("uptime_in_seconds").await >= delay.as_secs());
            guard.release().await.unwrap();
            // From here on nothing is in the way, until it restarts once more.
            take(&provider, "order").await.release().await.unwrap();
            if round == 0 {
                server.process.restart_empty();
            }
        }
    });
}

#[test]
fn locks_that_a_restart_has_kept_are_renewed_and_released_during_the_delay() {
    lock_tests::run(DEADLINE, async {
        let Some(server) = RedisOptions::default().persistent().start() else {
            return;
        };
        let mut server = Server::of(server).await;
        let lease = Duration::from_secs(2);
        let holder = connected(server.builder().lease(lease)).await;
        let guard = take(&holder, "order").await;
        let delay = Duration::from_secs(4);
        let builder = server.builder().lease(lease).restart_delay(delay);
        let careful = connected(builder).await;
        let other = take(&careful, "other").await;
        server.process.restart();
        let error = lock(&careful, "order").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("restart_delay"), "{error}");
        tokio::time::sleep(lease + Duration::from_millis(500)).await;
        assert!(!guard.is_lost() && !other.is_lost(), "they are renewed");
        other.release().await.unwrap();
        let error = lock(&careful, "other").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        guard.release().await.unwrap();
        let raw = Raw::connect(&server.process.url()).await;
        assert_eq!(raw.get("order").await, None);
    });
}
