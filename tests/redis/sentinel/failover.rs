//! Real sentinels make another server the primary, by force and by plan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockProvider, RedisProvider};
use lock_tests::history::Held;
use lock_tests::proxy::Flow;
use lock_tests::redis::sentinel::{SERVICE, SentinelOptions, SentinelServer};
use lock_tests::{FencedRegister, History, boot_nanos, eventually};

use super::service::{Detour, SOON, Service, with_service};
use crate::common::{BOUND, connected, lock, take};

const LEASE: Duration = Duration::from_secs(20);

async fn provider(service: &Service) -> Arc<RedisProvider> {
    let quick = Duration::from_millis(500);
    connected(service.builder().lease(LEASE).response_timeout(quick)).await
}

#[test]
fn a_lock_and_its_queue_outlive_a_killed_primary() {
    with_service(SentinelOptions::default(), |mut service| async move {
        let (holder, waiter) = (provider(&service).await, provider(&service).await);
        let guard = take(&holder, "order").await;
        let before = guard.fencing_token();
        let waiting = tokio::spawn(async move { lock(&waiter, "order").acquire().await });
        service.raw[0].until_waiting("order", 1).await;
        service.replicated().await;
        let killed = Instant::now();
        service.all.servers[0].kill();
        service.switched().await;
        let new = service.new_primary().await;
        // The holder is told nothing else for a third of a lease.
        let renewed = || async { new.ask::<u64>("PTTL order").await };
        let left = LEASE.saturating_sub(killed.elapsed()).as_millis();
        eventually("it is renewed", LEASE / 3, || async {
            u128::from(renewed().await) > left
        })
        .await;
        assert!(!guard.is_lost() && !waiting.is_finished());
        // Nobody minds that the old one comes back.
        service.all.servers[0].restart();
        guard.release().await.unwrap();
        let next = waiting.await.unwrap().expect("it outlasts the failover");
        assert!(next.fencing_token() > before);
        assert!(take(&holder, "another").await.fencing_token() > next.fencing_token());
    });
}

/// Lets the sentinels take as long to demote a primary that comes back as they do by default.
fn slow_down(service: &Service) {
    for sentinel in &service.all.sentinels {
        sentinel.ask("SENTINEL DEBUG PUBLISH-PERIOD 2000");
    }
}

/// Freezes the primary until another server has taken over, and thaws it then: it takes writes for
/// about ten seconds more, until the sentinels have it follow the new one. Returns for how long two
/// providers had the same lock.
async fn two_holders_after_a_thaw(service: &Service, old: &Arc<RedisProvider>) -> Duration {
    take(old, "order").await.release().await.unwrap();
    slow_down(service);
    service.replicated().await;
    service.all.servers[0].process().freeze();
    service.switched().await;
    service.all.servers[0].process().thaw();
    let switched = Instant::now();
    assert_ne!(service.primary(), 0);
    let new = provider(service).await;
    let guard = take(&new, "order").await;
    // The lock is held. Whoever still gets it has it from the old primary.
    let mut last = Duration::ZERO;
    loop {
        match lock(old, "order").try_acquire().await {
            Ok(Some(other)) => {
                other.lost().await;
                last = switched.elapsed();
            }
            Ok(None) => break,
            Err(error) => assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}"),
        }
    }
    assert!(!guard.is_lost());
    guard.release().await.expect("it is held");
    last
}

#[test]
fn a_thawed_primary_serves_nobody_who_has_heard_of_the_failover() {
    with_service(SentinelOptions::default(), |service| async move {
        let old = provider(&service).await;
        let guard = take(&old, "held").await;
        let both = two_holders_after_a_thaw(&service, &old).await;
        println!("two holders for {both:?}");
        assert!(both < SOON, "two holders for {both:?}");
        assert!(!guard.is_lost(), "the new primary knows this one");
        guard.release().await.unwrap();
    });
}

/// What the sentinels' messages are for: this client does not get them.
#[test]
fn without_the_messages_a_thawed_primary_serves_for_seconds() {
    with_service(SentinelOptions::default(), |service| async move {
        let ports = service.all.sentinels.iter().map(SentinelServer::port);
        let detour = Detour::to(ports).await;
        // It must not find out by an answer that is missing.
        let patient = Duration::from_secs(15);
        let builder = detour.builder().lease(LEASE * 6).response_timeout(patient);
        let deaf = connected(builder).await;
        for proxy in &detour.proxies {
            proxy.set(|fault| {
                fault.to_client = Flow::Swallow;
                fault.to_server = Flow::Swallow;
            });
        }
        take(&deaf, "warm-up").await.release().await.unwrap();
        slow_down(&service);
        service.replicated().await;
        service.all.servers[0].process().freeze();
        service.switched().await;
        service.all.servers[0].process().thaw();
        assert_ne!(service.primary(), 0);
        let guard = take(&provider(&service).await, "order").await;
        let other = take(&deaf, "order").await;
        assert!(!guard.is_lost() && !other.is_lost(), "two holders");
        assert!(detour.proxies.iter().any(|proxy| proxy.swallowed() > 0));
        let both = eventually("the sentinels demote it", BOUND * 2, || async {
            let role = service.all.servers[0].ask("ROLE");
            let demoted = role.first().is_some_and(|role| role == "slave");
            assert!(demoted || !other.is_lost());
            demoted
        })
        .await;
        for proxy in &detour.proxies {
            proxy.heal();
        }
        other.lost().await;
        println!("two holders for {both:?} without messages");
        assert!(both > Duration::from_secs(5), "two holders for {both:?}");
        assert!(!guard.is_lost());
    });
}

#[test]
fn a_planned_failover_under_load_costs_nobody_a_lock() {
    under_load(|service| {
        let asked = service.all.sentinels[0].ask(&format!("SENTINEL FAILOVER {SERVICE}"));
        assert_eq!(asked, ["OK"]);
    });
}

#[test]
fn a_kill_under_load_costs_nobody_more_than_a_wait() {
    under_load(|service| service.all.servers[0].kill());
}

/// Eight tasks of two providers contend for two names when a failover begins. It costs nobody an
/// error, no two hold a lock, and tokens go on growing.
fn under_load(begin: impl FnOnce(&mut Service) + Send + 'static) {
    with_service(SentinelOptions::default(), |mut service| async move {
        let (history, register) = (
            Arc::new(History::default()),
            Arc::new(FencedRegister::default()),
        );
        let done = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        // What is released at the old primary after the new one has its data is held there until its
        // lease ends.
        let builder = || service.builder().lease(Duration::from_secs(3));
        let providers = [connected(builder()).await, connected(builder()).await];
        for number in 0..8 {
            let provider = providers[number % 2].clone();
            let (history, register, done) = (history.clone(), register.clone(), done.clone());
            tasks.push(tokio::spawn(async move {
                let name = ["a", "b"][number / 2 % 2];
                while !done.load(Ordering::Relaxed) {
                    let guard = lock(&provider, name).acquire().await.expect("in the end");
                    let (from, token) = (boot_nanos(), guard.fencing_token().unwrap().get());
                    assert!(register.write(name, token), "a newer one has written");
                    tokio::task::yield_now().await;
                    let until = boot_nanos();
                    if !guard.is_lost() {
                        history.record(Held {
                            name: name.to_owned(),
                            holder: number.to_string(),
                            from,
                            until,
                            token: Some(token),
                        });
                    }
                    if let Err(error) = guard.release().await {
                        // A replica may lack the last writes.
                        assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
                    }
                }
            }));
        }
        eventually("they are busy", BOUND, || async { history.len() > 200 }).await;
        begin(&mut service);
        service.switched().await;
        let new = service.primary();
        let granted = history.len();
        let took = eventually("they go on", BOUND, || async {
            history.len() > granted + 200
        })
        .await;
        println!("200 grants within {took:?} after the failover");
        assert_eq!(service.primary(), new);
        done.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.expect("no fault");
        }
        history.check();
        for provider in providers {
            assert!(provider.describe().contains("redis"));
        }
    });
}
