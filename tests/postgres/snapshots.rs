//! The cost of a wait to the database, and of dead waiters to the others.

use std::time::{Duration, Instant};

use lock_tests::eventually;

use crate::common::{BOUND, connected, lock, probe, take, with_server};

/// The query for the age of the library's oldest snapshot, in milliseconds; zero if there is none.
const OLDEST: &str = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start) \
                      * 1000), 0)::int8 FROM pg_stat_activity \
                      WHERE usename = 'app' AND backend_xmin IS NOT NULL";

#[test]
fn an_index_is_created_concurrently_beside_a_waiter() {
    with_server(|server| async move {
        server
            .raw
            .batch_execute("CREATE TABLE invoices (id int)")
            .await
            .unwrap();
        let (holder, provider) = (server.provider().await, server.provider().await);
        let guard = take(&holder, "order").await;
        let waiting = tokio::spawn(async move { take(&provider, "order").await });
        server.until_waiting(1).await;
        let begun = Instant::now();
        let create = "CREATE INDEX CONCURRENTLY ON invoices (id)";
        server.raw.batch_execute(create).await.unwrap();
        let took = begun.elapsed();
        assert!(took <= Duration::from_secs(3), "{took:?}");
        server.until_waiting(1).await;
        guard.release().await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
    });
}

#[test]
fn no_waiter_keeps_a_snapshot_for_long() {
    with_server(|server| async move {
        let seconds = std::env::var("LOCK_TESTS_SNAPSHOT_SECONDS").ok();
        let age = seconds.map_or(2, |seconds| seconds.parse().expect("a number of seconds"));
        let age = Duration::from_secs(age);
        let holder = server.provider().await;
        let provider = connected(server.builder().snapshot_age(age)).await;
        let guard = take(&holder, "order").await;
        let waiting = tokio::spawn(async move { take(&provider, "order").await });
        server.until_waiting(1).await;
        let (begun, mut oldest) = (Instant::now(), 0);
        while begun.elapsed() < 4 * age {
            oldest = oldest.max(server.count(OLDEST).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(oldest >= 500, "{oldest} ms cannot be all");
        let bound = (age + Duration::from_secs(2)).as_millis() as i64;
        assert!(oldest <= bound, "{oldest} ms");
        guard.release().await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
    });
}

/// Each dead waiter costs the time to show that it does not live, and not a lease.
#[test]
fn dead_waiters_cost_seconds() {
    with_server(|server| async move {
        const LEASE: Duration = Duration::from_secs(20);
        const DEAD: usize = 4;
        let holder = server.provider().await;
        let guard = take(&holder, "order").await;
        let mut dead = Vec::new();
        for place in 1..=DEAD {
            let mut waiter = probe(&server.process, LEASE, "order");
            waiter.tell("acquire");
            server.until_waiting(place as i64).await;
            dead.push(waiter);
        }
        for waiter in &dead {
            waiter.freeze();
        }
        let provider = server.provider().await;
        let waiting = tokio::spawn(async move { take_however_long(&provider).await });
        server.until_waiting(DEAD as i64 + 1).await;
        let begun = Instant::now();
        guard.release().await.unwrap();
        waiting.await.unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2 * DEAD as u64 + 4), "{took:?}");
        for waiter in &dead {
            waiter.thaw();
        }
        eventually("they find that they have nothing", BOUND, || async {
            server.locks(true).await <= 1
        })
        .await;
    });
}

async fn take_however_long(provider: &std::sync::Arc<lock_runtime::PostgresProvider>) {
    let guard = lock(provider, "order")
        .acquire()
        .await
        .expect("its turn comes");
    guard.release().await.expect("it was held");
}
