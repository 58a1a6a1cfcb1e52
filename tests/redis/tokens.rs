//! Fencing tokens grow, whatever happens to the counter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lock_runtime::{FencingToken, LockGuard, RedisProvider};
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, RedisServer, eventually};
use tokio::task::JoinSet;

use crate::common::{BOUND, Server, connected, follow, lock, take, with_server};

async fn token(provider: &Arc<RedisProvider>) -> u64 {
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
        assert!(last < server.clock().await, "and stay below it");
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

/// Holds the lock while as many tasks of another process wait for it, each once. Returns how far
/// the counter goes meanwhile.
async fn hand_over(server: &Server, providers: &[Arc<RedisProvider>; 2], waiters: u32) -> u64 {
    let before: u64 = server.raw.ask("GET lk1:fence").await;
    let guard = take(&providers[0], "order").await;
    let last = Arc::new(AtomicU64::new(
        guard.fencing_token().expect("a token").get(),
    ));
    let mut tasks = JoinSet::new();
    for _ in 0..waiters {
        let (lock, last) = (lock(&providers[1], "order"), Arc::clone(&last));
        tasks.spawn(async move {
            let guard = lock.acquire_for(BOUND).await.expect("free soon");
            let token = guard.fencing_token().expect("a token").get();
            let before = last.swap(token, Ordering::Relaxed);
            assert!(before < token, "{token} after {before}");
            guard.release().await.expect("it was held");
        });
    }
    let wanted = format!("|{}|", 4 * waiters);
    eventually("the entry asks for a block", BOUND, || async {
        let entry: Option<String> = server.raw.ask("LINDEX {order}:lk1:waiters 0").await;
        entry.is_some_and(|entry| entry.contains(&wanted))
    })
    .await;
    guard.release().await.expect("it was held");
    while let Some(done) = tasks.join_next().await {
        done.expect("every token is above the last one");
    }
    let after: u64 = server.raw.ask("GET lk1:fence").await;
    after - before
}

#[test]
fn blocks_of_tokens_stay_below_the_clock() {
    with_server(|server| async move {
        let providers = [server.provider().await, server.provider().await];
        assert!(hand_over(&server, &providers, 5).await > 20, "a block");
        let reached: u64 = server.raw.ask("GET lk1:fence").await;
        assert!(reached < server.clock().await);
        // Ahead of the clock, which was set back: no more than one token a grant.
        let ahead = server.clock().await + 60_000_000;
        let set = format!("SET lk1:fence {ahead} PX 700000000");
        server.raw.ask::<String>(&set).await;
        assert_eq!(hand_over(&server, &providers, 5).await, 1 + 5);
    });
}

/// Values that another program, or an accident, has left in the counter's place.
const NO_COUNTERS: [&str; 8] = [
    "RPUSH lk1:fence 1700000000000000",
    "HSET lk1:fence counter 1700000000000000",
    "SET lk1:fence abc",
    "SET lk1:fence 1700000000000000.5",
    "SET lk1:fence -1700000000000000",
    // Scripts cannot count on in steps of one.
    "SET lk1:fence 9007199254740992",
    // Nothing can be added to the first, and the second is no number of the server's.
    "SET lk1:fence 9223372036854775807",
    "SET lk1:fence 9223372036854775808",
];

/// An acquisition does not fail half-way, and no token is below one that was given out before.
#[test]
fn what_is_no_counter_is_replaced_by_the_clock() {
    with_server(|server| async move {
        let (provider, waiter) = (server.provider().await, server.provider().await);
        let mut last = 0;
        for wrong in NO_COUNTERS {
            let spoil = || async {
                server.raw.ask::<u8>("DEL lk1:fence").await;
                server.raw.ask::<redis::Value>(wrong).await;
            };
            let mut grows = async |guard: &LockGuard, by: &str| {
                let token = guard.fencing_token().expect("a token").get();
                assert!(token > last, "{by}, after {wrong}: {token} after {last}");
                let now = server.clock().await;
                assert!(token < now, "{by}, after {wrong}: {token} at {now}");
                last = token;
            };
            spoil().await;
            let free = lock(&provider, "order").try_acquire().await;
            let held = free.unwrap_or_else(|error| panic!("{wrong}: {error}"));
            let held = held.expect("nobody holds it");
            grows(&held, "a free lock").await;
            spoil().await;
            let waiting = {
                let waiter = waiter.clone();
                tokio::spawn(async move { lock(&waiter, "order").acquire_for(BOUND).await })
            };
            server.raw.until_waiting("order", 1).await;
            spoil().await;
            held.release().await.expect("it was held");
            let handed = waiting.await.unwrap().expect("handed over");
            grows(&handed, "a hand-over").await;
            handed.release().await.expect("it was held");
            spoil().await;
            let latest = server.provider().await;
            grows(&take(&latest, "order").await, "a new connection").await;
            assert!(server.raw.ask::<i64>("PTTL lk1:fence").await > 0);
            server.raw.until_gone("order", BOUND).await;
        }
    });
}

/// The counter is above the clock, as where the clock was set back. A token that was given out
/// before may be above the clock, too.
#[test]
fn a_counter_above_the_clock_goes_on_from_there() {
    with_server(|server| async move {
        let (provider, waiter) = (server.provider().await, server.provider().await);
        for ahead in [server.clock().await + 60_000_000, 8_999_999_999_999_000] {
            let set = format!("SET lk1:fence {ahead} PX 700000000");
            server.raw.ask::<String>(&set).await;
            let held = take(&provider, "order").await;
            assert_eq!(held.fencing_token().map(FencingToken::get), Some(ahead + 1));
            let waiting = {
                let waiter = waiter.clone();
                tokio::spawn(async move { take(&waiter, "order").await })
            };
            server.raw.until_waiting("order", 1).await;
            held.release().await.unwrap();
            let handed = waiting.await.unwrap();
            assert_eq!(
                handed.fencing_token().map(FencingToken::get),
                Some(ahead + 2)
            );
            handed.release().await.unwrap();
            let latest = server.provider().await;
            assert_eq!(
                token(&latest).await,
                ahead + 3,
                "connecting changes nothing"
            );
        }
    });
}

#[test]
fn tokens_grow_over_a_restart_without_data() {
    with_server(|mut server| async move {
        let provider = connected(server.builder().failover_timeout(Duration::from_secs(10))).await;
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
    with_server(|mut server| async move {
        let Some(replica) = RedisServer::start_plain() else {
            return;
        };
        let replica = Server::of(replica).await;
        let replication = follow(&server, &replica).await;
        let address = FaultProxy::start(server.process.port()).await;
        let url = format!("redis://127.0.0.1:{}", address.port());
        let patient = Duration::from_secs(30);
        let provider = connected(RedisProvider::builder(url).failover_timeout(patient)).await;
        let early = token(&provider).await;
        eventually("the replica has it too", BOUND, || async {
            // And the release, or it would hold the lock for the rest of a lease.
            replica.raw.get("lk1:fence").await == Some(early.to_string())
                && replica.raw.get("order").await.is_none()
        })
        .await;
        replication.set(|fault| fault.to_client = Flow::Swallow);
        let mut last = early;
        for _ in 0..5 {
            last = token(&provider).await;
        }
        eventually("what it is sent vanishes", BOUND, || async {
            replication.swallowed() > 0
        })
        .await;
        server.process.kill();
        replica.raw.ask::<String>("REPLICAOF NO ONE").await;
        let missed = replica.raw.get("lk1:fence").await;
        assert_eq!(
            missed,
            Some(early.to_string()),
            "it has missed the last ones"
        );
        address.lead_to(replica.process.port());
        for _ in 0..2 {
            let next = token(&provider).await;
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        assert!(last < replica.clock().await, "and stay below the clock");
    });
}
