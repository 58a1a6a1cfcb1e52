//! Fencing tokens grow, whatever happens to the counter.

use std::time::Duration;

use crate::common::{BOUND, connected, lock, take, with_server};

async fn token(provider: &std::sync::Arc<lock_runtime::RedisProvider>) -> u64 {
    let guard = take(provider, "order").await;
    let token = guard.fencing_token().expect("a token").get();
    guard.release().await.unwrap();
    token
}

#[test]
fn tokens_grow_from_the_servers_clock() {
    with_server(|server| async move {
        let (first, second) = (server.provider().await, server.provider().await);
        let mut last = 1_700_000_000_000_000;
        for round in 0..50 {
            let next = token(if round % 2 == 0 { &first } else { &second }).await;
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        let (seconds, micros): (u64, u64) = server.raw.ask("TIME").await;
        assert!(last < seconds * 1_000_000 + micros, "and stay below it");
    });
}

#[test]
fn tokens_grow_when_the_counter_is_deleted() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let waiter = server.provider().await;
        let mut last = 0;
        for _ in 0..20 {
            server.raw.ask::<u8>("DEL lk1:fence").await;
            let guard = take(&provider, "order").await;
            let next = guard.fencing_token().expect("a token").get();
            assert!(next > last, "{next} after {last}");
            let waiting = {
                let waiter = waiter.clone();
                tokio::spawn(async move { lock(&waiter, "order").acquire_for(BOUND).await })
            };
            server.raw.until_waiting("order", 1).await;
            // By a hand-over too.
            server.raw.ask::<u8>("DEL lk1:fence").await;
            guard.release().await.unwrap();
            let handed = waiting.await.unwrap().unwrap();
            last = handed.fencing_token().expect("a token").get();
            assert!(last > next, "{last} after {next}");
            handed.release().await.unwrap();
            assert!(
                server.raw.ask::<i64>("PTTL lk1:fence").await > 0,
                "and it gets a life again"
            );
        }
    });
}

#[test]
fn tokens_grow_over_a_restart_without_data() {
    with_server(|mut server| async move {
        let provider = connected(server.builder().connect_timeout(Duration::from_secs(10))).await;
        let mut last = token(&provider).await;
        for _ in 0..3 {
            server.process.restart_empty();
            let next = token(&provider).await;
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    });
}

#[test]
fn tokens_grow_on_a_promoted_replica_without_the_last_writes() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let last = token(&provider).await;
        // As if the last increments had not come through.
        server
            .raw
            .ask::<String>(&format!("SET lk1:fence {} PX 700000000", last - 1))
            .await;
        server.raw.ask::<u8>("CLIENT KILL TYPE pubsub").await;
        let next = token(&provider).await;
        assert!(next > last, "{next} after {last}");
    });
}
