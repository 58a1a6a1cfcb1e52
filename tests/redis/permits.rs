//! Semaphores: how many are out, who is served when, and what is left of those that crash, leave or
//! lose a part.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockMode, LockProvider};
use lock_tests::eventually;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::common::{BOUND, LONG, TICK, enter, entering, permits, request, try_enter, with_server};

const QUEUE: &str = "LLEN {order}:lk1:permits";
const OUT: &str = "ZCARD order";

#[test]
fn no_more_are_out_than_there_are() {
    with_server(|server| async move {
        let (first, second) = (server.provider().await, server.provider().await);
        let one = try_enter(&first, "order", permits(3, 1)).await.unwrap();
        let two = try_enter(&second, "order", permits(3, 2)).await.unwrap();
        assert_eq!(one.mode(), permits(3, 1));
        assert!(one.token().is_none() && two.token().is_none());
        for provider in [&first, &second] {
            let error = try_enter(provider, "order", permits(3, 1))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        }
        // Each applies its own limit to all that are out.
        let third = try_enter(&first, "order", permits(5, 2)).await.unwrap();
        assert_eq!(server.raw.count(OUT).await, 5);
        let members: Vec<String> = server.raw.ask("ZRANGE order 0 -1").await;
        assert!(members.iter().all(|member| member.starts_with("lk1:")));
        assert_eq!(members.iter().filter(|it| it.ends_with("#2")).count(), 2);
        first.release(&third).await.unwrap();
        second.release(&two).await.unwrap();
        assert_eq!(server.raw.count(OUT).await, 1);
        first.release(&one).await.unwrap();
        let error = first.release(&one).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        // A semaphore has no counter.
        let keys: Vec<String> = server.raw.ask("KEYS *").await;
        assert_eq!(keys, ["lk1:fence"]);
    });
}

#[test]
fn a_pair_is_two_requests() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let grant = enter(&provider, "order", permits(3, 1)).await;
        provider.release(&grant).await.unwrap();
        let before = server.raw.scripts().await;
        for take in 1..=3 {
            let grant = enter(&provider, "order", permits(3, take)).await;
            provider.release(&grant).await.unwrap();
        }
        assert_eq!(server.raw.scripts().await - before, 6);
    });
}

/// The head wants three, and is not overtaken by those that want one.
#[test]
fn a_waiter_for_several_is_served_when_all_are_there() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let third = server.provider_with_long_lease().await;
        let mut out = Vec::new();
        for _ in 0..3 {
            out.push(enter(&first, "order", permits(3, 1)).await);
        }
        let (head, _) = entering(&second, "order", permits(3, 2), LONG);
        server.raw.until(QUEUE, 1).await;
        let (next, _) = entering(&third, "order", permits(3, 1), LONG);
        server.raw.until(QUEUE, 2).await;
        first.release(&out[0]).await.unwrap();
        // One is free, and the head wants two.
        assert_eq!(server.raw.count(OUT).await, 2);
        assert_eq!(server.raw.count(QUEUE).await, 2);
        let error = try_enter(&first, "order", permits(3, 1)).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "out of turn");
        first.release(&out[1]).await.unwrap();
        let head = head.await.unwrap().unwrap();
        assert_eq!(server.raw.count(OUT).await, 3);
        assert!(!next.is_finished());
        first.release(&out[2]).await.unwrap();
        let next = next.await.unwrap().unwrap();
        second.release(&head).await.unwrap();
        third.release(&next).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn who_wants_many_is_not_starved_by_those_that_want_one() {
    with_server(|server| async move {
        let many = server.provider_with_long_lease().await;
        let stop = Arc::new(AtomicU32::new(0));
        let mut working = Vec::new();
        for _ in 0..4 {
            let (provider, stop) = (server.provider_with_long_lease().await, Arc::clone(&stop));
            working.push(tokio::spawn(async move {
                while stop.load(Ordering::Relaxed) == 0 {
                    let grant = enter(&provider, "order", permits(3, 1)).await;
                    provider.release(&grant).await.unwrap();
                }
            }));
        }
        for _ in 0..20 {
            let grant = enter(&many, "order", permits(3, 3)).await;
            assert_eq!(server.raw.count(OUT).await, 3);
            many.release(&grant).await.unwrap();
        }
        stop.store(1, Ordering::Relaxed);
        for worker in working {
            worker.await.unwrap();
        }
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_grant_that_lost_a_part_is_lost() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        for lost in ["#3", "#2", ""] {
            let grant = enter(&first, "order", permits(3, 3)).await;
            let (waiting, _) = entering(&second, "order", permits(3, 2), LONG);
            server.raw.until(QUEUE, 1).await;
            let members: Vec<String> = server.raw.ask("ZRANGE order 0 -1").await;
            let all = |it: &&String| match lost {
                "" => !it.contains('#'),
                _ => it.ends_with(lost),
            };
            let member = members.iter().find(all).expect("it is there");
            server.raw.count(&format!("ZREM order {member}")).await;
            let error = first.renew(&grant).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
            // The rest is given back, to whoever waits.
            let waited = waiting.await.unwrap().unwrap();
            assert_eq!(server.raw.count(OUT).await, 2);
            let error = first.release(&grant).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
            assert_eq!(server.raw.count(OUT).await, 2);
            second.release(&waited).await.unwrap();
        }
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_crashed_holder_costs_one_lease_and_leaves_nothing() {
    with_server(|server| async move {
        let (crashed, waiter) = (
            server.provider().await,
            server.provider_with_long_lease().await,
        );
        let lease = Duration::from_secs(1);
        let (dying, _) = request("order", permits(2, 2), lease, false);
        let start = Instant::now();
        crashed.acquire(&dying).await.unwrap();
        let life = server.raw.count("PTTL order").await;
        assert!((2_000..=3_000).contains(&life), "{life}");
        let grant = enter(&waiter, "order", permits(2, 1)).await;
        let after = start.elapsed();
        assert!(after >= lease - TICK, "{after:?}");
        assert!(after < lease + Duration::from_millis(700), "{after:?}");
        waiter.release(&grant).await.unwrap();
        server.raw.until_nothing_is_left().await;
        // Nobody comes: the key itself ends.
        let (dying, _) = request("order", permits(2, 2), Duration::from_millis(100), false);
        crashed.acquire(&dying).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_mutex_and_a_semaphore_of_one_name_are_told_of_each_other() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let told = async |mode, waits, expected: &str| {
            let (request, _interest) = request("order", mode, LONG, waits);
            let error = provider.acquire(&request).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
            let text = error.to_string();
            assert!(
                text.contains(&format!("the key `order` holds {expected}")),
                "{text}"
            );
        };
        let permit = enter(&provider, "order", permits(3, 1)).await;
        for waits in [false, true] {
            told(LockMode::Exclusive, waits, "a semaphore").await;
        }
        provider.release(&permit).await.unwrap();
        let mutex = enter(&provider, "order", LockMode::Exclusive).await;
        for waits in [false, true] {
            told(permits(3, 1), waits, "a mutex").await;
            told(permits(3, 2), waits, "a mutex").await;
        }
        provider.release(&mutex).await.unwrap();
        server.raw.count("HSET order field value").await;
        told(permits(3, 1), true, "a value of another type").await;
        server.raw.count("DEL order").await;
        // A book of the application, of which nothing is dropped.
        server.raw.count("ZADD order 1 a 2 b").await;
        for mode in [permits(3, 1), permits(3, 3)] {
            told(mode, false, "a value that never expires").await;
            told(mode, true, "a value that never expires").await;
        }
        assert_eq!(server.raw.count(OUT).await, 2);
        assert_eq!(server.raw.ask::<i64>("PTTL order").await, -1);
        assert_eq!(server.raw.count(QUEUE).await, 0);
    });
}

/// A client whose clock is wrong by an hour does no harm: it tells the server no time.
#[test]
fn ends_are_by_the_servers_clock() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let mut monitor = TcpStream::connect(("127.0.0.1", server.process.port()))
            .await
            .unwrap();
        monitor.write_all(b"MONITOR\r\n").await.unwrap();
        let mut lines = BufReader::new(monitor).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
        let before = server.clock().await / 1_000;
        let grant = enter(&provider, "order", permits(3, 2)).await;
        let after = server.clock().await / 1_000;
        let ends: Vec<(String, f64)> = server.raw.ask("ZRANGE order 0 -1 WITHSCORES").await;
        for (_, end) in ends {
            let end = end as u64;
            assert!((before + 600_000..=after + 600_000).contains(&end), "{end}");
        }
        provider.renew(&grant).await.unwrap();
        provider
            .release_later(&grant, Duration::from_secs(60))
            .await
            .unwrap();
        server.raw.ask::<String>("PING").await;
        let mut scripts = 0;
        loop {
            let line = lines.next_line().await.unwrap().expect("a line");
            if line.contains("\"PING\"") {
                break;
            }
            if line.contains("\"EVAL") {
                scripts += 1;
                let is_time = |word: &str| word.parse::<f64>().is_ok_and(|it| it > 1e9);
                let mut words = line.split('"').skip(5);
                assert!(!words.any(is_time), "{line}");
            }
        }
        assert!(scripts >= 3, "{scripts}");
    });
}

#[test]
fn permits_may_be_kept_for_a_while() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let kept = enter(&first, "order", permits(2, 2)).await;
        let (waiting, _) = entering(&second, "order", permits(2, 1), LONG);
        server.raw.until(QUEUE, 1).await;
        let (rest, start) = (Duration::from_millis(700), Instant::now());
        first.release_later(&kept, rest).await.unwrap();
        for outcome in [
            first.renew(&kept).await.map(drop),
            first.release(&kept).await,
            first.release_later(&kept, rest).await,
        ]
        .iter()
        .take(2)
        {
            let error = outcome.as_ref().unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        }
        assert_eq!(server.raw.count(OUT).await, 2, "they are out");
        let waited = waiting.await.unwrap().unwrap();
        let after = start.elapsed();
        assert!(
            after >= rest && after < rest + Duration::from_millis(500),
            "{after:?}"
        );
        second.release(&waited).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn who_gives_up_waiting_leaves_nothing() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let third = server.provider_with_long_lease().await;
        let held = enter(&first, "order", permits(3, 2)).await;
        for _ in 0..20 {
            let (waiting, interest) = entering(&second, "order", permits(3, 3), LONG);
            server.raw.until(QUEUE, 1).await;
            let (next, _) = entering(&third, "order", permits(3, 1), LONG);
            server.raw.until(QUEUE, 2).await;
            interest.abandon();
            let error = waiting.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
            // It was in the way of the next one, which is served now.
            let next = next.await.unwrap().unwrap();
            assert_eq!(server.raw.count(QUEUE).await, 0);
            third.release(&next).await.unwrap();
        }
        first.release(&held).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_wake_up_that_is_lost_is_healed_by_the_waiter() {
    with_server(|server| async move {
        let (holder, waiter) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let held = enter(&holder, "order", permits(1, 1)).await;
        let lease = Duration::from_millis(1_200);
        let (waiting, _) = entering(&waiter, "order", permits(1, 1), lease);
        server.raw.until(QUEUE, 1).await;
        let entry: String = server.raw.ask("LPOP {order}:lk1:permits").await;
        let owner = entry.split('|').nth(1).unwrap();
        let end = server.clock().await / 1_000 + 1_200;
        server.raw.count(&format!("ZADD order {end} {owner}")).await;
        let lost = Instant::now();
        let grant = waiting.await.unwrap().unwrap();
        assert!(lost.elapsed() < lease, "{:?}", lost.elapsed());
        waiter.release(&grant).await.unwrap();
        holder.release(&held).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn they_are_passed_on_to_whoever_waits_and_come_back() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let old = enter(&first, "order", permits(2, 2)).await;
        let (theirs, _) = entering(&second, "order", permits(2, 1), LONG);
        server.raw.until(QUEUE, 1).await;
        let (request, _interest) = request("order", permits(2, 2), LONG, true);
        let ours = {
            let first = Arc::clone(&first);
            tokio::spawn(async move { first.pass_on(&old, &request).await.unwrap() })
        };
        let theirs = theirs.await.unwrap().unwrap();
        server.raw.until(QUEUE, 1).await;
        assert_eq!(server.raw.count(OUT).await, 1);
        second.release(&theirs).await.unwrap();
        let ours = ours.await.unwrap();
        assert_eq!(server.raw.count(OUT).await, 2);
        first.release(&ours).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn more_than_there_are_is_refused_at_once() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let old = enter(&provider, "order", permits(3, 3)).await;
        let error = try_enter(&provider, "other", permits(3, 4))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        let (request, _interest) = request("order", permits(3, 4), LONG, true);
        let error = provider.pass_on(&old, &request).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        // The old grant is over all the same.
        eventually("it is given back", BOUND, || async {
            server.raw.count(OUT).await == 0
        })
        .await;
    });
}

#[test]
fn thousands_may_be_taken_at_once() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let grant = enter(&provider, "order", permits(u32::MAX, 10_000)).await;
        assert_eq!(server.raw.count(OUT).await, 10_000);
        provider.renew(&grant).await.unwrap();
        let (waiting, _) = entering(&provider, "order", permits(10_000, 1), LONG);
        server.raw.until(QUEUE, 1).await;
        provider.release(&grant).await.unwrap();
        let one = waiting.await.unwrap().unwrap();
        assert_eq!(server.raw.count(OUT).await, 1);
        provider.release(&one).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_crowd_of_processes_never_has_more_than_there_are() {
    with_server(|server| async move {
        let out = Arc::new(AtomicU32::new(0));
        let peak = Arc::new(AtomicU32::new(0));
        let mut working = Vec::new();
        for _ in 0..4 {
            let provider = server.provider_with_long_lease().await;
            for worker in 0..6 {
                let provider = Arc::clone(&provider);
                let (out, peak) = (Arc::clone(&out), Arc::clone(&peak));
                working.push(tokio::spawn(async move {
                    for round in 0..30 {
                        let take = (worker + round) % 3 + 1;
                        let grant = enter(&provider, "order", permits(5, take)).await;
                        let now = out.fetch_add(take, Ordering::SeqCst) + take;
                        assert!(now <= 5, "{now}");
                        peak.fetch_max(now, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        out.fetch_sub(take, Ordering::SeqCst);
                        provider.release(&grant).await.unwrap();
                    }
                }));
            }
        }
        for worker in working {
            worker.await.unwrap();
        }
        assert_eq!(peak.load(Ordering::SeqCst), 5);
        server.raw.until_nothing_is_left().await;
    });
}
