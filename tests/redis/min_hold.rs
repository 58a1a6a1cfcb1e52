//! A lock stays for a while after its body, and the server sees to it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockMode, RedisProvider};
use lock_tests::any_lock::ModeWord;
use lock_tests::proxy::Flow;
use lock_tests::{AnyLock, FaultProxy, Probe, eventually};
use tokio::task::JoinSet;

use crate::common::{BOUND, Raw, Server, connected, lock, permits, take, with_server};

const MIN_HOLD: Duration = Duration::from_millis(1_500);
/// The time that a busy machine may add.
const BUSY: Duration = Duration::from_millis(300);

fn probe(server: &Server, name: &str) -> Probe {
    let program = Path::new(env!("CARGO_BIN_EXE_lock-probe"));
    Probe::start(program, &server.process.url(), name)
}

async fn life(raw: &Raw, key: &str) -> i64 {
    raw.ask(&format!("PTTL {key}")).await
}

/// How a process goes after its job has run.
#[derive(Debug, Clone, Copy)]
enum Goes {
    Exits,
    IsKilled,
    IsStopped,
}

#[test]
fn min_hold_outlives_the_process() {
    with_server(|server| async move {
        let server = Arc::new(server);
        for mode in [LockMode::Exclusive, LockMode::Write, permits(3, 2)] {
            let mut cases = JoinSet::new();
            for goes in [Goes::Exits, Goes::IsKilled, Goes::IsStopped] {
                // With a lease that is longer than it, and one that is shorter.
                for lease in ["30s", "500ms"] {
                    let name = format!("{goes:?}-{lease}-{}", ModeWord(mode));
                    cases.spawn(outlives(Arc::clone(&server), name, mode, goes, lease));
                }
            }
            cases.join_all().await;
        }
    });
}

/// Runs a job in a process that goes, and checks when the lock is free.
async fn outlives(
    server: Arc<Server>,
    name: String,
    mode: LockMode,
    goes: Goes,
    lease: &'static str,
) {
    let case = format!("{mode:?}, {goes:?}, {lease}");
    let url = format!("{}?lease={lease}", server.process.url());
    let program = Path::new(env!("CARGO_BIN_EXE_lock-probe"));
    let mut process = Probe::start(program, &url, &name);
    process.tell(&format!("as {}", ModeWord(mode)));
    let asked = Instant::now();
    let answer = process.ask("job 1500", "job", BOUND).await;
    let ran = Instant::now();
    assert_eq!(answer[1], "ran", "{case}");
    match goes {
        Goes::Exits => process.exit(),
        Goes::IsKilled => process.kill(),
        Goes::IsStopped => process.freeze(),
    }
    let lock = AnyLock::on(mode, server.provider().await, name.as_str());
    if asked.elapsed() < MIN_HOLD {
        let free = lock.try_acquire().await.unwrap();
        assert!(free.is_none() || asked.elapsed() >= MIN_HOLD, "{case}");
    }
    let guard = lock.acquire_for(BOUND).await.unwrap();
    let (after, late) = (asked.elapsed(), ran.elapsed().saturating_sub(MIN_HOLD));
    assert!(after >= MIN_HOLD, "{case}: {after:?}");
    assert!(late < BUSY, "{case}: {late:?} too late");
    guard.release().await.unwrap();
}

/// The server's clock is cut to whole milliseconds.
#[test]
fn min_hold_is_no_fraction_of_a_millisecond_shorter() {
    with_server(|server| async move {
        let min_hold = Duration::from_millis(20);
        for mode in [LockMode::Exclusive, LockMode::Write, permits(1, 1)] {
            let (holder, other) = (server.provider().await, server.provider().await);
            let held = AnyLock::on(mode, holder, "tick").min_hold(min_hold);
            let wanted = AnyLock::on(mode, other, "tick");
            for round in 0..40 {
                let guard = held.acquire().await.unwrap();
                let granted = Instant::now();
                guard.release().await.unwrap();
                let next = loop {
                    if let Some(next) = wanted.try_acquire().await.unwrap() {
                        break next;
                    }
                };
                let after = granted.elapsed();
                assert!(after >= min_hold, "{mode:?}, round {round}: {after:?}");
                next.release().await.unwrap();
            }
        }
    });
}

#[test]
fn waiters_are_served_in_order_when_min_hold_ends() {
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        // By far shorter than the lease, and longer than a waiter's own, which looks every third.
        for waiter_lease in [Duration::from_secs(600), Duration::from_millis(900)] {
            let order = lock(&holder, "order").min_hold(MIN_HOLD);
            let guard = order.acquire().await.unwrap();
            let granted = Instant::now();
            let mut waiting = Vec::new();
            for place in 1..=3 {
                let waiter = connected(server.builder().lease(waiter_lease)).await;
                waiting.push(tokio::spawn(async move {
                    let guard = take(&waiter, "order").await;
                    let at = Instant::now();
                    guard.release().await.unwrap();
                    at
                }));
                server.raw.until_waiting("order", place).await;
            }
            guard.release().await.unwrap();
            assert!(granted.elapsed() < MIN_HOLD, "the call does not wait");
            let mut last = granted;
            for (place, waiting) in waiting.into_iter().enumerate() {
                let at = waiting.await.unwrap();
                let after = at.duration_since(granted);
                assert!(at > last, "{place} came before the one before it");
                let within = MIN_HOLD - Duration::from_millis(50)..MIN_HOLD + BUSY;
                assert!(within.contains(&after), "{place}: {after:?}");
                last = at;
            }
        }
    });
}

#[test]
fn the_next_in_line_looks_when_the_head_leaves() {
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        let guard = lock(&holder, "order").min_hold(MIN_HOLD).acquire().await;
        let granted = Instant::now();
        let mut waiting = Vec::new();
        for place in 1..=3 {
            let waiter = server.provider_with_long_lease().await;
            waiting.push(tokio::spawn(async move { take(&waiter, "order").await }));
            server.raw.until_waiting("order", place).await;
        }
        guard.unwrap().release().await.unwrap();
        // Those that were told when the lock ends go.
        let third = waiting.pop().unwrap();
        for (left, gone) in waiting.into_iter().zip([2, 1]) {
            left.abort();
            server.raw.until_waiting("order", gone).await;
        }
        let guard = third.await.unwrap();
        let after = granted.elapsed();
        assert!(after < MIN_HOLD + BUSY, "{after:?}");
        guard.release().await.unwrap();
    });
}

/// Requests of the holder are still on their way when its body has ended.
#[test]
fn late_requests_of_the_holder_change_nothing() {
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        let guard = lock(&holder, "order").min_hold(MIN_HOLD).acquire().await;
        let owner = server.raw.get("order").await.expect("it is held");
        guard.unwrap().release().await.unwrap();
        let client = redis::Client::open(server.process.url()).unwrap();
        let mut client = client.get_multiplexed_async_connection().await.unwrap();
        let renew = redis::Script::new(include_str!(
            "../../lock-runtime/src/providers/redis/scripts/renew.lua"
        ));
        let mut renewed = 0;
        for lease in [100, 600_000] {
            let mut late = renew.key("order");
            let answer: i64 = late
                .arg(&owner)
                .arg(lease)
                .invoke_async(&mut client)
                .await
                .unwrap();
            assert!(answer < 1, "{answer}");
            renewed += 1;
            let left = life(&server.raw, "order").await;
            assert!((1..=1_500).contains(&left), "{left} ms");
        }
        assert_eq!(renewed, 2);
        let other = server.provider().await;
        assert!(lock(&other, "order").try_acquire().await.unwrap().is_none());
    });
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let builder = RedisProvider::builder(url).lease(Duration::from_secs(600));
        let provider = connected(builder.response_timeout(Duration::from_secs(5))).await;
        let order = lock(&provider, "order").min_hold(Duration::from_secs(60));
        let guard = order.acquire().await.unwrap();
        let owner = server.raw.get("order").await;
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let releasing = tokio::spawn(guard.release());
        eventually("it was done", BOUND, || async {
            server.raw.get("order").await != owner
        })
        .await;
        proxy.reset();
        proxy.heal();
        releasing.await.unwrap().unwrap();
        let left = life(&server.raw, "order").await;
        assert!((1..=60_000).contains(&left), "{left} ms");
    });
}

#[test]
fn a_full_server_keeps_what_is_to_stay() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let order = lock(&provider, "order").min_hold(Duration::from_secs(60));
        let guard = order.acquire().await.unwrap();
        server.raw.ask::<String>("CONFIG SET maxmemory 1").await;
        guard.release().await.unwrap();
        let left = life(&server.raw, "order").await;
        assert!((1..=60_000).contains(&left), "{left} ms");
    });
}

#[test]
fn a_lock_that_is_gone_is_not_kept() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        for theirs in ["DEL order", "SET order theirs", "RENAME other order"] {
            server.raw.ask::<u8>("HSET other field value").await;
            let order = lock(&provider, "order").min_hold(MIN_HOLD);
            let guard = order.acquire().await.unwrap();
            server.raw.ask::<redis::Value>(theirs).await;
            let error = guard.release().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{theirs}: {error}");
            assert!(life(&server.raw, "order").await < 0, "{theirs}");
            server.raw.ask::<u8>("DEL order").await;
        }
    });
}

/// The clocks of two replicas differ, and the job ends before the second one's clock strikes.
#[test]
fn a_nightly_job_runs_once_a_night() {
    with_server(|server| async move {
        let skew = Duration::from_millis(40);
        for (min_hold, runs) in [(0, 2), (600, 1)] {
            let mut replicas = [probe(&server, "report"), probe(&server, "report")];
            for night in 0..4 {
                let mut ran = 0;
                // Now one is early, and then the other one.
                replicas.rotate_left(1);
                for replica in &mut replicas {
                    let job = format!("job {min_hold}");
                    let answer = replica.ask(&job, "job", BOUND).await;
                    ran += usize::from(answer[1] == "ran");
                    tokio::time::sleep(skew).await;
                }
                assert_eq!(ran, runs, "night {night} with {min_hold} ms");
                server.raw.until_gone("report", BOUND).await;
            }
        }
    });
}
