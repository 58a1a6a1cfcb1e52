//! The queue on the server, and the hand-over by a published grant.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::eventually;

use crate::common::{BOUND, connected, lock, take, with_server};

#[test]
fn processes_are_served_in_arrival_order() {
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        let guard = take(&holder, "order").await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for place in 0..6 {
            let (provider, served) = (server.provider_with_long_lease().await, served.clone());
            waiting.push(tokio::spawn(async move {
                let guard = take(&provider, "order").await;
                served.lock().unwrap().push(place);
                guard.release().await.unwrap();
            }));
            server.raw.until_waiting("order", place + 1).await;
        }
        guard.release().await.unwrap();
        for waiter in waiting {
            waiter.await.unwrap();
        }
        assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(server.raw.get("order").await, None);
    });
}

#[test]
fn a_hand_over_is_not_waited_for() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let mut times = Vec::new();
        for _ in 0..50 {
            let guard = take(&first, "order").await;
            let second = second.clone();
            let waiting = tokio::spawn(async move {
                let guard = take(&second, "order").await;
                (Instant::now(), guard)
            });
            server.raw.until_waiting("order", 1).await;
            let start = Instant::now();
            guard.release().await.unwrap();
            let (granted, guard) = waiting.await.unwrap();
            times.push(granted.saturating_duration_since(start));
            guard.release().await.unwrap();
        }
        times.sort();
        // Polling would make it tens of milliseconds.
        assert!(times[25] < Duration::from_millis(10), "{times:?}");
    });
}

#[test]
fn the_waiters_of_a_process_are_one_entry() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let guard = take(&first, "order").await;
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let second = second.clone();
                tokio::spawn(async move { take(&second, "order").await.release().await })
            })
            .collect();
        server.raw.until_waiting("order", 1).await;
        // The entry comes to ask for as many tokens as the process can use in one run.
        eventually("it asks for 32 tokens", BOUND, || async {
            let entry: String = server.raw.ask("LINDEX {order}:lk1:waiters 0").await;
            entry.split('|').nth(3) == Some("32")
        })
        .await;
        assert_eq!(server.raw.waiting("order").await, 1);
        let before = server.raw.info("total_commands_processed").await;
        guard.release().await.unwrap();
        for waiter in waiting {
            waiter.await.unwrap().unwrap();
        }
        let commands = server.raw.info("total_commands_processed").await - before;
        // One by one, these would be 50 times two scripts of four commands.
        assert!(commands < 200, "{commands}");
    });
}

#[test]
fn entries_of_the_dead_are_passed_over() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let guard = take(&first, "order").await;
        let (seconds, micros): (u64, u64) = server.raw.ask("TIME").await;
        let now = seconds * 1_000 + micros / 1_000;
        let push = |entry: String| {
            let raw = server.raw.clone();
            async move {
                raw.ask::<u64>(&format!("RPUSH {{order}}:lk1:waiters {entry}"))
                    .await
            }
        };
        // Nobody listens any more; was not refreshed; is nothing that can be read.
        push(format!(
            "lk1:h:1:{:032x}|lk1:grants:gone|600000|1|{}",
            1,
            now + 600_000
        ))
        .await;
        let waiting = tokio::spawn(async move { take(&second, "order").await });
        server.raw.until_waiting("order", 2).await;
        push(format!(
            "lk1:h:1:{:032x}|lk1:grants:gone|600000|1|{}",
            2,
            now - 1
        ))
        .await;
        push("neither".to_owned()).await;
        guard.release().await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
        assert_eq!(server.raw.get("order").await, None);
        assert_eq!(server.raw.waiting("order").await, 0);
    });
}

#[test]
fn who_gives_up_waiting_leaves_nothing() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let guard = take(&first, "order").await;
        let patience = Duration::from_millis(20);
        // The caller waits for the server no longer than that.
        let bound = Duration::from_millis(25);
        for _ in 0..20 {
            let began = Instant::now();
            let error = lock(&second, "order")
                .acquire_for(patience)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::TimedOut);
            if began.elapsed() < patience + bound {
                let left = server.raw.waiting("order").await;
                assert_eq!(left, 0, "removed before the answer");
            } else {
                server.raw.until_waiting("order", 0).await;
            }
        }
        guard.release().await.unwrap();
    });
}

#[test]
fn a_grant_that_nobody_wants_any_more_is_handed_on() {
    with_server(|server| async move {
        let mut providers = Vec::new();
        for _ in 0..3 {
            providers.push(server.provider_with_long_lease().await);
        }
        for _ in 0..100 {
            let guard = take(&providers[0], "order").await;
            let [fickle, patient] = [1, 2].map(|at| providers[at].clone());
            let fickle = tokio::spawn(async move { take(&fickle, "order").await.release().await });
            server.raw.until_waiting("order", 1).await;
            let patient = tokio::spawn(async move { take(&patient, "order").await });
            server.raw.until_waiting("order", 2).await;
            // At the same moment the grant is published and its waiter goes away.
            let releasing = tokio::spawn(guard.release());
            fickle.abort();
            releasing.await.unwrap().unwrap();
            patient.await.unwrap().release().await.unwrap();
        }
        server.raw.until_gone("order", BOUND).await;
        assert_eq!(server.raw.waiting("order").await, 0);
    });
}

#[test]
fn a_crashed_holder_costs_what_is_left_of_its_lease() {
    with_server(|server| async move {
        let first = server.provider_with_long_lease().await;
        let second = server.provider_with_long_lease().await;
        // The entry of a dead waiter stands before the others.
        server
            .raw
            .ask::<String>(&format!("SET order lk1:h:1:{:032x} PX 2000", 7))
            .await;
        let gone = Instant::now();
        let waiting: Vec<_> = [first, second]
            .into_iter()
            .map(|provider| {
                tokio::spawn(async move { take(&provider, "order").await.release().await })
            })
            .collect();
        server.raw.until_waiting("order", 2).await;
        for waiter in waiting {
            waiter.await.unwrap().unwrap();
        }
        let waited = gone.elapsed();
        assert!(waited >= Duration::from_millis(1_950), "{waited:?}");
        assert!(waited < Duration::from_secs(4), "{waited:?}");
    });
}

#[test]
fn waiters_outlive_their_entrys_lease() {
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        let waiter = connected(server.builder().lease(Duration::from_millis(300))).await;
        let guard = take(&holder, "order").await;
        let waiting = tokio::spawn(async move { take(&waiter, "order").await });
        server.raw.until_waiting("order", 1).await;
        let until = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < until {
            assert_eq!(server.raw.waiting("order").await, 1);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let released = Instant::now();
        guard.release().await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
        assert!(released.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn a_crowd_of_processes_never_overlaps() {
    with_server(|server| async move {
        let inside = Arc::new(Mutex::new(0_u64));
        let last = Arc::new(Mutex::new(0_u64));
        let mut working = Vec::new();
        for _ in 0..4 {
            let provider = server.provider_with_long_lease().await;
            for _ in 0..8 {
                let (provider, inside, last) = (provider.clone(), inside.clone(), last.clone());
                working.push(tokio::spawn(async move {
                    for _ in 0..50 {
                        let guard = take(&provider, "order").await;
                        {
                            let _alone = inside.try_lock().expect("nobody else is inside");
                            let token = guard.fencing_token().expect("a token").get();
                            let mut last = last.lock().unwrap();
                            assert!(token > *last, "{token} after {last}");
                            *last = token;
                        }
                        guard.release().await.unwrap();
                    }
                }));
            }
        }
        for worker in working {
            worker.await.unwrap();
        }
        server.raw.until_gone("order", BOUND).await;
        assert_eq!(server.raw.waiting("order").await, 0);
    });
}

#[test]
fn locks_that_differ_in_braces_alone_do_not_share_their_waiters() {
    with_server(|server| async move {
        let (holder, waiter, other) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let held = take(&holder, "{order}").await;
        let waiting = tokio::spawn(async move { take(&waiter, "{order}").await });
        eventually("it waits", BOUND, || async {
            server.raw.ask::<Vec<String>>("KEYS *waiters").await.len() == 1
        })
        .await;
        let free = lock(&other, "order").try_acquire().await.unwrap();
        free.expect("another lock").release().await.unwrap();
        assert!(!waiting.is_finished(), "the lock that it waits for is held");
        held.release().await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
    });
}

/// No script looks through the queue, since the server would do nothing else meanwhile.
#[test]
fn a_long_queue_costs_the_server_little() {
    with_server(|server| async move {
        let raw = &server.raw;
        let holder = server.provider_with_long_lease().await;
        let lease = Duration::from_secs(3);
        let waiter = connected(server.builder().lease(lease)).await;
        let held = take(&holder, "order").await;
        let expires = server.clock().await / 1_000 + 600_000;
        let mut others = String::from("RPUSH {order}:lk1:waiters");
        for number in 0..10_000 {
            others += &format!(" lk1:host:{number}:0123456789abcdef|nobody|600000|1|{expires}");
        }
        raw.ask::<u32>(&others).await;
        raw.ask::<u8>("PEXPIRE {order}:lk1:waiters 600000").await;
        raw.ask::<String>("CONFIG SET slowlog-log-slower-than 5000")
            .await;
        raw.ask::<String>("SLOWLOG RESET").await;
        let waiting = tokio::spawn({
            let order = lock(&waiter, "order");
            async move { order.acquire_for(Duration::from_secs(4)).await }
        });
        raw.until_waiting("order", 10_001).await;
        let entry: String = raw.ask("LINDEX {order}:lk1:waiters -1").await;
        eventually("the entry is refreshed three times", BOUND, || async {
            let now: String = raw.ask("LINDEX {order}:lk1:waiters -1").await;
            let expiry = |entry: &str| entry.rsplit('|').next().unwrap().parse::<u64>().unwrap();
            expiry(&now) >= expiry(&entry) + 2_000
        })
        .await;
        assert!(waiting.await.unwrap().is_err());
        raw.until_waiting("order", 10_000).await;
        // Scripts are slow readers: 20 ms for so many entries.
        let stats: String = raw.ask("INFO commandstats").await;
        assert!(stats.contains("cmdstat_lpos:"), "{stats}");
        assert!(!stats.contains("cmdstat_lrange:"), "{stats}");
        raw.ask::<u8>("DEL {order}:lk1:waiters").await;
        held.release().await.unwrap();
    });
}

/// The server looks often, or looks for an entry that is not there, and that costs it as little.
#[test]
fn a_long_queue_behind_its_head_costs_the_server_little() {
    with_server(|server| async move {
        const QUEUE: &str = "{order}:lk1:waiters";
        let raw = &server.raw;
        raw.ask::<String>("SET order foreign PX 60000").await;
        let waiter = connected(server.builder().lease(Duration::from_secs(3))).await;
        let waiting = tokio::spawn({
            let order = lock(&waiter, "order");
            async move { order.acquire().await }
        });
        raw.until_waiting("order", 1).await;
        let expires = server.clock().await / 1_000 + 600_000;
        let mut others = format!("RPUSH {QUEUE}");
        for number in 0..10_000 {
            others += &format!(" lk1:host:{number}:0123456789abcdef|nobody|600000|1|{expires}");
        }
        raw.ask::<u32>(&others).await;
        raw.ask::<u8>(&format!("PEXPIRE {QUEUE} 600000")).await;
        let slow_of_ten = async || {
            raw.ask::<String>("CONFIG RESETSTAT").await;
            raw.ask::<String>("CONFIG SET slowlog-log-slower-than 5000")
                .await;
            raw.ask::<String>("SLOWLOG RESET").await;
            eventually("it looks ten times", BOUND, || async {
                let stats: String = raw.ask("INFO commandstats").await;
                let calls = stats.split_once("cmdstat_evalsha:calls=");
                let calls = calls.and_then(|(_, rest)| rest.split(',').next());
                calls.is_some_and(|calls| calls.parse::<u32>().unwrap() >= 10)
            })
            .await;
            raw.ask::<u32>("SLOWLOG LEN").await
        };
        // A script that reads so many entries takes 20 ms. What is slow otherwise is the machine.
        let slow = slow_of_ten().await;
        assert!(slow < 5, "{slow} of ten looks of the head");
        let entry: String = raw.ask(&format!("LINDEX {QUEUE} 0")).await;
        assert!(!entry.contains("|nobody|"), "{entry}");
        // It finds its place gone, and takes the last one.
        let lost = Instant::now();
        eventually("it is the last", BOUND, || async {
            let first: String = raw.ask(&format!("LINDEX {QUEUE} 0")).await;
            if !first.contains("|nobody|") {
                raw.ask::<u32>(&format!("LREM {QUEUE} 1 {first}")).await;
            }
            let last: String = raw.ask(&format!("LINDEX {QUEUE} -1")).await;
            !last.contains("|nobody|")
        })
        .await;
        assert!(lost.elapsed() < Duration::from_secs(5));
        raw.ask::<u8>(&format!("DEL {QUEUE}")).await;
        raw.ask::<u8>("DEL order").await;
        waiting.await.unwrap().unwrap().release().await.unwrap();
    });
}

/// A request and its repetition come to the server in the same millisecond.
#[test]
fn an_entry_that_is_there_twice_costs_no_neighbour_its_place() {
    const QUEUE: &str = "{order}:lk1:waiters";
    with_server(|server| async move {
        server.raw.ask::<String>("SET order foreign PX 60000").await;
        let mut waiting = Vec::new();
        for count in 1..=2 {
            let provider = server.provider_with_long_lease().await;
            waiting.push(tokio::spawn(async move { take(&provider, "order").await }));
            server.raw.until_waiting("order", count).await;
        }
        let owners = || async {
            let entries: Vec<String> = server.raw.ask(&format!("LRANGE {QUEUE} 0 -1")).await;
            let owner = |entry: &String| entry.split('|').next().unwrap_or_default().to_owned();
            entries.iter().map(owner).collect::<Vec<_>>()
        };
        let before = owners().await;
        for _ in 0..3 {
            let again = "redis.call('RPUSH',KEYS[1],redis.call('LINDEX',KEYS[1],0))";
            let () = server.raw.ask(&format!("EVAL {again} 1 {QUEUE}")).await;
            // The head looks behind a foreign holder, and tidies up.
            server.raw.until_waiting("order", 2).await;
            assert_eq!(owners().await, before);
        }
        server.raw.ask::<u8>("DEL order").await;
        for waiter in waiting {
            waiter.await.unwrap().release().await.unwrap();
        }
    });
}
