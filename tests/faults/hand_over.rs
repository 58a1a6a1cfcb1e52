//! Grants that get lost or come late on their way to a waiter, and waiters that are gone or
//! stopped.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_tests::proxy::Flow;
use lock_tests::{Probe, eventually};

use crate::common::{BOUND, DEADLINE, connected, lock, take, with_server};
use crate::network::{builder_behind, count, proxy_of};
use crate::server_stats::{calls, take_as_foreigner};
use crate::together::{Together, long};

#[test]
fn a_grant_whose_message_vanished_is_found() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let lease = Duration::from_secs(6);
        let waiter = connected(builder_behind(&proxy).lease(lease)).await;
        let holder = server.provider_with_long_lease().await;
        for _ in 0..2 {
            let held = take(&holder, "order").await;
            let owner = server.raw.get("order").await;
            let waiter = waiter.clone();
            let waiting = tokio::spawn(async move { take(&waiter, "order").await });
            server.raw.until_waiting("order", 1).await;
            let swallowed = proxy.swallowed();
            proxy.set(|fault| fault.to_client = Flow::Swallow);
            let released = Instant::now();
            held.release().await.unwrap();
            eventually("the message vanishes", BOUND, || async {
                proxy.swallowed() > swallowed
            })
            .await;
            assert_ne!(server.raw.get("order").await, owner, "handed over");
            assert!(!waiting.is_finished(), "and not noticed");
            proxy.heal();
            let guard = waiting.await.unwrap();
            // It looks after a third of its lease, and over a new connection if that is not
            // answered; the rest is the machine's.
            assert!(released.elapsed() < lease, "{:?}", released.elapsed());
            guard.release().await.unwrap();
        }
    });
}

/// The grant is on its way for longer than it lasts. When it arrives, somebody else holds the lock.
#[test]
fn a_grant_that_comes_too_late_is_none() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy)
            .lease(Duration::from_secs(1))
            .failover_timeout(Duration::from_secs(30))
            .response_timeout(Duration::from_millis(200));
        let waiter = connected(builder).await;
        let holder = server.provider_with_long_lease().await;
        let held = take(&holder, "order").await;
        let waiting = tokio::spawn(async move { take(&waiter, "order").await });
        server.raw.until_waiting("order", 1).await;
        proxy.set(|fault| {
            fault.to_client = Flow::Hold;
            fault.to_server = Flow::Swallow;
            fault.refuse = true;
        });
        held.release().await.unwrap();
        eventually("the waiter connects anew", BOUND, || async {
            count(&proxy.counts().refused) > 0
        })
        .await;
        take_as_foreigner(&server.raw, "order").await;
        let passed = count(&proxy.counts().to_client);
        proxy.set(|fault| fault.to_client = Flow::Pass);
        eventually("the message goes on", BOUND, || async {
            count(&proxy.counts().to_client) > passed
        })
        .await;
        // Until the waiter may have read it, if it still does.
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.heal();
        server.raw.until_waiting("order", 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(
            !waiting.is_finished(),
            "it believes to have what another one has"
        );
        assert_eq!(server.raw.get("order").await.as_deref(), Some("foreign"));
        server.raw.ask::<u8>("DEL order").await;
        waiting.await.unwrap().release().await.unwrap();
    });
}

/// The grant reaches a process that does not run. It costs the others one lease, and the process
/// does not believe in it afterwards.
#[test]
fn a_frozen_waiter_costs_a_lease() {
    with_server(|server| async move {
        let lease = Duration::from_secs(2);
        let url = format!("{}?lease=2s", server.process.url());
        let holder = server.provider_with_long_lease().await;
        let next = connected(server.builder().lease(lease)).await;
        let held = take(&holder, "order").await;
        let mut frozen = Probe::start(Path::new(env!("CARGO_BIN_EXE_lock-probe")), &url, "order");
        frozen.tell("acquire");
        server.raw.until_waiting("order", 1).await;
        let waiting = tokio::spawn(async move { take(&next, "order").await });
        server.raw.until_waiting("order", 2).await;
        frozen.freeze();
        let released = Instant::now();
        held.release().await.unwrap();
        let owner = server.raw.get("order").await.expect("handed over");
        assert!(owner.contains(&format!(":{}:", frozen.id())), "{owner}");
        let guard = waiting.await.unwrap();
        let waited = released.elapsed();
        assert!(waited >= lease - Duration::from_millis(50), "{waited:?}");
        assert!(waited < lease + BOUND / 2, "{waited:?}");
        frozen.thaw();
        server.raw.until_waiting("order", 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(frozen.surprise(), None, "it believes to have the lock");
        let token = guard.fencing_token().expect("a token").get();
        guard.release().await.unwrap();
        let answer = frozen.expect("acquired", BOUND).await;
        assert!(answer[2].parse::<u64>().unwrap() > token, "{answer:?}");
    });
}

#[test]
fn a_crowd_costs_no_more_commands_per_hand_over() {
    const PROCESSES: usize = 40;
    const TASKS: usize = 5;
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        let held = take(&holder, "order").await;
        let mut waiting = Vec::new();
        for _ in 0..PROCESSES {
            let provider = server.provider_with_long_lease().await;
            for _ in 0..TASKS {
                let provider = Arc::clone(&provider);
                waiting.push(tokio::spawn(async move {
                    take(&provider, "order").await.release().await
                }));
            }
        }
        server.raw.until_waiting("order", PROCESSES).await;
        let asked = |raw: crate::common::Raw| async move {
            calls(&raw, "evalsha").await + calls(&raw, "eval").await
        };
        let before = asked(server.raw.clone()).await;
        held.release().await.unwrap();
        for waiter in waiting {
            waiter.await.unwrap().unwrap();
        }
        let scripts = asked(server.raw.clone()).await - before;
        // One would do; a process whose tasks are late queues again. If all looked whenever the
        // lock changes hands, it would be 40 times 40.
        assert!(
            scripts >= PROCESSES as u64 && scripts <= 4 * PROCESSES as u64,
            "{scripts} scripts"
        );
    });
}

/// Nobody else looks after the queue meanwhile, and the stopped process still has its connection.
#[test]
fn a_waiter_that_is_frozen_for_longer_than_its_entry_lives_is_passed_over() {
    with_server(|server| async move {
        let raw = &server.raw;
        let url = format!("{}?lease=1s", server.process.url());
        let (holder, next) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let held = take(&holder, "order").await;
        let mut frozen = Probe::start(Path::new(env!("CARGO_BIN_EXE_lock-probe")), &url, "order");
        frozen.tell("acquire");
        raw.until_waiting("order", 1).await;
        let waiting = tokio::spawn(async move { take(&next, "order").await });
        raw.until_waiting("order", 2).await;
        frozen.freeze();
        let entry: String = raw.ask("LINDEX {order}:lk1:waiters 0").await;
        assert!(entry.contains(&format!(":{}:", frozen.id())), "{entry}");
        let expires: u64 = entry.rsplit('|').next().unwrap().parse().unwrap();
        eventually("its entry has expired", BOUND, || async {
            let (seconds, micros): (u64, u64) = raw.ask("TIME").await;
            seconds * 1_000 + micros / 1_000 > expires
        })
        .await;
        assert_eq!(raw.waiting("order").await, 2, "and is still there");
        held.release().await.unwrap();
        let owner = raw.get("order").await.expect("handed over");
        assert!(!owner.contains(&format!(":{}:", frozen.id())), "{owner}");
        let guard = waiting.await.unwrap();
        frozen.thaw();
        raw.until_waiting("order", 1).await;
        guard.release().await.unwrap();
        frozen.expect("acquired", BOUND).await;
    });
}

/// The grants come together with the answers that their waiters are in the queue.
#[test]
fn many_grants_that_come_with_the_answers_are_all_heard() {
    with_server(|server| async move {
        const NAMES: usize = 600;
        let holder = server.provider_with_long_lease().await;
        let mut held = Vec::new();
        for name in 0..NAMES {
            held.push(take(&holder, &format!("order{name}")).await);
        }
        let configure = |builder| long(builder).response_timeout(DEADLINE);
        // It knows that the server knows the scripts.
        let together = Together::start(&server, configure).await;
        let (proxy, waiter) = (&together.proxy, &together.provider);
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let waiting: Vec<_> = (0..NAMES)
            .map(|name| {
                let waiter = waiter.clone();
                tokio::spawn(async move {
                    let order = lock(&waiter, &format!("order{name}"));
                    order.acquire_for(DEADLINE).await
                })
            })
            .collect();
        eventually("all wait", BOUND, || async {
            let queues: Vec<String> = server.raw.ask("KEYS *waiters").await;
            queues.len() == NAMES
        })
        .await;
        for guard in held {
            guard.release().await.unwrap();
        }
        // Whoever does not hear its grant asks again, and finds it by renewing it.
        let found = calls(&server.raw, "pexpire").await;
        proxy.heal();
        for waiter in waiting {
            drop(waiter.await.unwrap().unwrap());
        }
        assert_eq!(calls(&server.raw, "pexpire").await, found, "all are heard");
    });
}
