//! Reader–writer locks: who gets in beside whom and in which order, what stands on the server, and
//! what is left of those that crash, leave or are not answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{Grant, LockErrorKind, LockMode, LockProvider, RedisProvider};
use lock_tests::eventually;

use crate::common::{
    BOUND, LONG, Server, TICK, connected, enter, entering, request, try_enter, with_server,
};

const QUEUE: &str = "LLEN {order}:lk1:rw";
const READERS: &str = "SCARD order.readers";

fn token(grant: &Grant) -> u64 {
    grant.token().expect("a token").get()
}

async fn providers<const N: usize>(server: &Server) -> [Arc<RedisProvider>; N] {
    let mut providers = Vec::new();
    for _ in 0..N {
        providers.push(server.provider_with_long_lease().await);
    }
    providers.try_into().expect("so many")
}

async fn is_contended(provider: &RedisProvider, mode: LockMode) -> bool {
    match try_enter(provider, "order", mode).await {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
            true
        }
    }
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    with_server(|server| async move {
        let [first, second] = providers(&server).await;
        let one = try_enter(&first, "order", LockMode::Read).await.unwrap();
        let two = try_enter(&second, "order", LockMode::Read).await.unwrap();
        assert_eq!(one.mode(), LockMode::Read);
        assert!(is_contended(&first, LockMode::Write).await);
        // Released in any order.
        first.release(&one).await.unwrap();
        assert!(is_contended(&first, LockMode::Write).await);
        second.release(&two).await.unwrap();
        let write = try_enter(&first, "order", LockMode::Write).await.unwrap();
        assert!(is_contended(&second, LockMode::Write).await);
        assert!(is_contended(&second, LockMode::Read).await);
        let [first_read, of_write, second_read] = [&one, &write, &two].map(token);
        assert!(first_read < of_write && second_read < of_write);
        first.release(&write).await.unwrap();
        let last = try_enter(&first, "order", LockMode::Read).await.unwrap();
        assert!(token(&last) > of_write);
        first.release(&last).await.unwrap();
        let error = first.release(&last).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        let keys: Vec<String> = server.raw.ask("KEYS *").await;
        assert_eq!(keys, ["lk1:fence"]);
    });
}

#[test]
fn no_key_lives_for_ever_and_ends_are_remembered_for_a_day() {
    with_server(|server| async move {
        let [first, second, third] = providers(&server).await;
        let read = enter(&first, "order", LockMode::Read).await;
        let (write, _) = entering(&second, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 1).await;
        let (late, _) = entering(&third, "order", LockMode::Read, LONG);
        server.raw.until(QUEUE, 2).await;
        let mut keys: Vec<String> = server.raw.ask("KEYS *").await;
        keys.sort();
        let expected = [
            "lk1:fence",
            "order.readers",
            "order.writer",
            "{order}:lk1:readers",
            "{order}:lk1:rw",
        ];
        assert_eq!(keys, expected);
        for key in keys {
            assert!(server.raw.ask::<i64>(&format!("PTTL {key}")).await > 0);
        }
        let day = server.raw.count("PTTL {order}:lk1:readers").await;
        assert!((80_000_000..=86_400_000).contains(&day), "{day}");
        let mark = server.raw.get("order.writer").await.expect("a mark");
        let owner = mark.strip_suffix("_WRITERWAITING").expect("a mark");
        let entry: String = server.raw.ask("LINDEX {order}:lk1:rw 0").await;
        assert!(entry.starts_with(&format!("w|{owner}|")), "{entry}");
        first.release(&read).await.unwrap();
        let write = write.await.unwrap().unwrap();
        second.release(&write).await.unwrap();
        let late = late.await.unwrap().unwrap();
        third.release(&late).await.unwrap();
        let keys: Vec<String> = server.raw.ask("KEYS *").await;
        assert_eq!(keys, ["lk1:fence"]);
    });
}

#[test]
fn a_pair_is_two_requests() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        for mode in [LockMode::Read, LockMode::Write] {
            let grant = enter(&provider, "order", mode).await;
            provider.release(&grant).await.unwrap();
            let before = server.raw.scripts().await;
            for _ in 0..10 {
                let grant = enter(&provider, "order", mode).await;
                provider.release(&grant).await.unwrap();
            }
            assert_eq!(server.raw.scripts().await - before, 20);
        }
    });
}

#[test]
fn arrival_order_holds_over_both_modes_and_neighbours_enter_together() {
    with_server(|server| async move {
        let all: [_; 6] = providers(&server).await;
        let held = enter(&all[0], "order", LockMode::Write).await;
        let (read, write) = (LockMode::Read, LockMode::Write);
        let mut waiting = Vec::new();
        for (count, mode) in [read, read, write, read, write].into_iter().enumerate() {
            waiting.push(entering(&all[count + 1], "order", mode, LONG).0);
            server.raw.until(QUEUE, count as u64 + 1).await;
        }
        let mut waiting = waiting.into_iter();
        let mut next = async || waiting.next().unwrap().await.unwrap().unwrap();
        all[0].release(&held).await.unwrap();
        let (one, two) = (next().await, next().await);
        assert!(token(&held) < token(&one) && token(&one) < token(&two));
        assert_eq!(server.raw.count(READERS).await, 2);
        assert_eq!(server.raw.count(QUEUE).await, 3);
        // A writer waits: readers that do not are refused.
        assert!(is_contended(&all[0], LockMode::Read).await);
        all[1].release(&one).await.unwrap();
        assert_eq!(server.raw.count(QUEUE).await, 3);
        all[2].release(&two).await.unwrap();
        let third = next().await;
        assert_eq!(server.raw.count(QUEUE).await, 2);
        all[3].release(&third).await.unwrap();
        let fourth = next().await;
        all[4].release(&fourth).await.unwrap();
        let fifth = next().await;
        let tokens = [&two, &third, &fourth, &fifth].map(token);
        assert!(tokens.is_sorted(), "{tokens:?}");
        all[5].release(&fifth).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_grant_may_be_shared_until_somebody_waits() {
    with_server(|server| async move {
        let [reader, writer] = providers(&server).await;
        let read = enter(&reader, "order", LockMode::Read).await;
        assert!(reader.may_share(&read).await.unwrap());
        // One that does not wait leaves no trace.
        assert!(is_contended(&writer, LockMode::Write).await);
        assert!(reader.may_share(&read).await.unwrap());
        let (waiting, interest) = entering(&writer, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 1).await;
        assert!(!reader.may_share(&read).await.unwrap());
        interest.abandon();
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        assert!(reader.may_share(&read).await.unwrap());
        // A dead writer and its mark hold nobody back.
        let owner = format!("lk1:h:1:{:032x}", 1);
        let expires = server.clock().await / 1_000 + 600_000;
        let entry = format!("w|{owner}|lk1:grants:gone|600000|1|{expires}");
        server
            .raw
            .count(&format!("RPUSH {{order}}:lk1:rw {entry}"))
            .await;
        let mark = format!("SET order.writer {owner}_WRITERWAITING PX 600000");
        server.raw.ask::<String>(&mark).await;
        assert!(reader.may_share(&read).await.unwrap());
        assert_eq!(server.raw.get("order.writer").await, None);
        reader.release(&read).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_dead_writer_that_waited_stops_nobody() {
    with_server(|server| async move {
        let [reader, other] = providers(&server).await;
        let owner = format!("lk1:h:1:{:032x}", 1);
        // It is known to be dead, or its entry has expired.
        for (channel, life) in [("lk1:grants:gone", 600_000), ("heard", 0)] {
            let read = enter(&reader, "order", LockMode::Read).await;
            let expires = server.clock().await / 1_000 + life;
            let entry = format!("w|{owner}|{channel}|600000|1|{expires}");
            server
                .raw
                .count(&format!("RPUSH {{order}}:lk1:rw {entry}"))
                .await;
            let mark = format!("SET order.writer {owner}_WRITERWAITING PX 600000");
            server.raw.ask::<String>(&mark).await;
            let second = try_enter(&other, "order", LockMode::Read).await.unwrap();
            reader.release(&read).await.unwrap();
            other.release(&second).await.unwrap();
            server.raw.until_nothing_is_left().await;
        }
    });
}

/// Others read without a pause, and their renewals keep the readers' key alive.
#[test]
fn a_crashed_reader_costs_one_lease() {
    with_server(|server| async move {
        let [crashed, others, waiting] = providers(&server).await;
        let lease = Duration::from_secs(1);
        for waits in [true, false] {
            let start = Instant::now();
            let (dying, _) = request("order", LockMode::Read, lease, false);
            let dead = crashed.acquire(&dying).await.unwrap();
            let read = enter(&others, "order", LockMode::Read).await;
            let write = match waits {
                true => {
                    let (write, _) = entering(&waiting, "order", LockMode::Write, LONG);
                    server.raw.until(QUEUE, 1).await;
                    others.renew(&read).await.unwrap();
                    others.release(&read).await.unwrap();
                    write.await.unwrap().unwrap()
                }
                false => {
                    others.release(&read).await.unwrap();
                    loop {
                        if let Ok(read) = try_enter(&others, "order", LockMode::Read).await {
                            others.renew(&read).await.unwrap();
                            others.release(&read).await.unwrap();
                        }
                        match try_enter(&waiting, "order", LockMode::Write).await {
                            Ok(write) => break write,
                            Err(error) => assert_eq!(error.kind(), LockErrorKind::Contended),
                        }
                    }
                }
            };
            let after = start.elapsed();
            assert!(after >= lease - TICK, "{after:?}");
            assert!(after < lease + Duration::from_millis(700), "{after:?}");
            let error = crashed.renew(&dead).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
            waiting.release(&write).await.unwrap();
            server.raw.until_nothing_is_left().await;
        }
    });
}

#[test]
fn renewals_of_all_modes_go_together_and_tell_each_its_own_loss() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let mut grants = Vec::new();
        for name in ["kept", "lost"] {
            for mode in [
                LockMode::Exclusive,
                LockMode::Read,
                LockMode::Write,
                crate::common::permits(3, 1),
                crate::common::permits(3, 2),
            ] {
                let name = format!("{name}-{}", grants.len());
                grants.push(Arc::new(enter(&provider, &name, mode).await));
            }
        }
        server.raw.count("DEL lost-5").await;
        server.raw.count("DEL {lost-6}:lk1:readers").await;
        server.raw.count("DEL lost-7.writer").await;
        server.raw.count("DEL lost-8").await;
        let part = format!("lk1:{}", grants[9].owner());
        let member: Vec<String> = server.raw.ask("ZRANGE lost-9 0 -1").await;
        assert_eq!(member.len(), 2, "{part}");
        let second = member.iter().find(|it| it.ends_with("#2")).unwrap();
        server.raw.count(&format!("ZREM lost-9 {second}")).await;
        for forgotten in [false, true] {
            if forgotten {
                server.raw.ask::<String>("SCRIPT FLUSH").await;
            }
            let before = server.raw.scripts().await;
            let answers = provider.renew_all(&grants).await;
            for (number, answer) in answers.iter().enumerate() {
                match answer {
                    Ok(_) => assert!(number < 5, "{number}"),
                    Err(error) => {
                        assert!(number >= 5, "{number}: {error}");
                        assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
                    }
                }
            }
            let asked = server.raw.scripts().await - before;
            assert!(asked <= 20, "{asked}");
        }
        // What was left of them is gone.
        let left: Vec<String> = server.raw.ask("KEYS *lost*").await;
        assert_eq!(left, Vec::<String>::new());
        for grant in &grants[..5] {
            provider.release(grant).await.unwrap();
        }
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_renewal_extends_its_own_reader_alone() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let lease = Duration::from_secs(3);
        let (one, _) = request("order", LockMode::Read, lease, false);
        let (two, _) = request("order", LockMode::Read, lease, false);
        let one = provider.acquire(&one).await.unwrap();
        let _two = provider.acquire(&two).await.unwrap();
        let ends = async || -> Vec<f64> {
            let all: Vec<(String, f64)> = server
                .raw
                .ask("ZRANGE {order}:lk1:readers 0 -1 WITHSCORES")
                .await;
            all.into_iter().map(|(_, end)| end).collect()
        };
        let before = ends().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        provider.renew(&one).await.unwrap();
        let after = ends().await;
        assert_eq!(after[0], before[1], "the other one's stays");
        assert!(after[1] >= before[0] + 50.0);
        let life = server.raw.count("PTTL order.readers").await;
        assert!(life > 2_900, "{life}");
    });
}

#[test]
fn a_lock_is_passed_on_from_one_mode_to_another() {
    with_server(|server| async move {
        let [first, second] = providers(&server).await;
        let pass_on = async |old: &Grant, mode| {
            let (request, _interest) = request("order", mode, LONG, true);
            first.pass_on(old, &request).await.unwrap()
        };
        // Nobody waits: at once, in one request.
        let write = enter(&first, "order", LockMode::Write).await;
        let warm = pass_on(&write, LockMode::Write).await;
        let before = server.raw.scripts().await;
        let read = pass_on(&warm, LockMode::Read).await;
        let write = pass_on(&read, LockMode::Write).await;
        assert_eq!(server.raw.scripts().await - before, 2);
        let tokens = [&warm, &read, &write].map(token);
        assert!(tokens.is_sorted(), "{tokens:?}");
        // Behind another process that waits.
        let (theirs, _) = entering(&second, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 1).await;
        let (request, _interest) = request("order", LockMode::Read, LONG, true);
        let ours = {
            let (first, write) = (Arc::clone(&first), write);
            tokio::spawn(async move { first.pass_on(&write, &request).await.unwrap() })
        };
        let theirs = theirs.await.unwrap().unwrap();
        server.raw.until(QUEUE, 1).await;
        second.release(&theirs).await.unwrap();
        let ours = ours.await.unwrap();
        assert!(token(&ours) > token(&theirs));
        first.release(&ours).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_writer_may_keep_the_lock_for_a_while() {
    with_server(|server| async move {
        let [first, second, third] = providers(&server).await;
        let write = enter(&first, "order", LockMode::Write).await;
        let (next, _) = entering(&second, "order", LockMode::Read, LONG);
        server.raw.until(QUEUE, 1).await;
        let (last, _) = entering(&third, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 2).await;
        let rest = Duration::from_millis(700);
        let start = Instant::now();
        first.release_later(&write, rest).await.unwrap();
        let error = first.renew(&write).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        let next = next.await.unwrap().unwrap();
        let after = start.elapsed();
        assert!(
            after >= rest && after < rest + Duration::from_millis(500),
            "{after:?}"
        );
        let error = second.release_later(&next, rest).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Unsupported, "{error}");
        second.release(&next).await.unwrap();
        third.release(&last.await.unwrap().unwrap()).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn who_gives_up_waiting_leaves_nothing() {
    with_server(|server| async move {
        let [first, second, third] = providers(&server).await;
        for mode in [LockMode::Write, LockMode::Read] {
            let held = enter(&first, "order", LockMode::Write).await;
            for _ in 0..20 {
                let (waiting, interest) = entering(&second, "order", mode, LONG);
                server.raw.until(QUEUE, 1).await;
                interest.abandon();
                let error = waiting.await.unwrap().unwrap_err();
                assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
                assert_eq!(server.raw.count(QUEUE).await, 0, "before the answer");
            }
            first.release(&held).await.unwrap();
        }
        // A grant comes in the moment in which its waiter leaves.
        for _ in 0..50 {
            let held = enter(&first, "order", LockMode::Write).await;
            let (fickle, interest) = entering(&second, "order", LockMode::Read, LONG);
            server.raw.until(QUEUE, 1).await;
            let (patient, _) = entering(&third, "order", LockMode::Write, LONG);
            server.raw.until(QUEUE, 2).await;
            let releasing = first.release(&held);
            interest.abandon();
            releasing.await.unwrap();
            if let Ok(read) = fickle.await.unwrap() {
                second.release(&read).await.unwrap();
            }
            let patient = patient.await.unwrap().unwrap();
            third.release(&patient).await.unwrap();
        }
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn readers_behind_a_writer_that_leaves_enter_at_once() {
    with_server(|server| async move {
        let [reader, writer, late] = providers(&server).await;
        let read = enter(&reader, "order", LockMode::Read).await;
        let (write, interest) = entering(&writer, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 1).await;
        let (second, _) = entering(&late, "order", LockMode::Read, LONG);
        server.raw.until(QUEUE, 2).await;
        interest.abandon();
        assert!(write.await.unwrap().is_err());
        let second = tokio::time::timeout(Duration::from_secs(2), second);
        let second = second.await.expect("at once").unwrap().unwrap();
        assert_eq!(server.raw.get("order.writer").await, None);
        reader.release(&read).await.unwrap();
        late.release(&second).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

/// The lock is the waiter's, and the message that says so was lost.
#[test]
fn a_wake_up_that_is_lost_is_healed_by_the_waiter() {
    with_server(|server| async move {
        let [holder, waiter] = providers(&server).await;
        for mode in [LockMode::Write, LockMode::Read] {
            let held = enter(&holder, "order", LockMode::Write).await;
            let lease = Duration::from_millis(1_200);
            let (waiting, _) = entering(&waiter, "order", mode, lease);
            server.raw.until(QUEUE, 1).await;
            let entry: String = server.raw.ask("LPOP {order}:lk1:rw").await;
            let owner = entry.split('|').nth(1).unwrap().to_owned();
            match mode {
                LockMode::Write => {
                    let set = format!("SET order.writer {owner} PX 1200");
                    server.raw.ask::<String>(&set).await;
                }
                _ => {
                    let end = server.clock().await / 1_000 + 1_200;
                    server.raw.count("DEL order.writer").await;
                    let zadd = format!("ZADD {{order}}:lk1:readers {end} {owner}");
                    server.raw.count(&zadd).await;
                    server
                        .raw
                        .count(&format!("SADD order.readers {owner}"))
                        .await;
                }
            }
            let lost = Instant::now();
            let grant = waiting.await.unwrap().unwrap();
            assert!(lost.elapsed() < lease, "{:?}", lost.elapsed());
            waiter.release(&grant).await.unwrap();
            assert!(holder.release(&held).await.is_err());
            server.raw.until_nothing_is_left().await;
        }
    });
}

#[test]
fn scripts_may_be_forgotten_and_locks_lost() {
    with_server(|mut server| async move {
        let [first, second] = providers(&server).await;
        let flush = async || server.raw.ask::<String>("SCRIPT FLUSH").await;
        flush().await;
        let read = enter(&first, "order", LockMode::Read).await;
        flush().await;
        assert!(first.may_share(&read).await.unwrap());
        let (waiting, _) = entering(&second, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 1).await;
        flush().await;
        first.renew(&read).await.unwrap();
        flush().await;
        first.release(&read).await.unwrap();
        let write = waiting.await.unwrap().unwrap();
        flush().await;
        second
            .release_later(&write, Duration::from_millis(1))
            .await
            .unwrap();
        server.raw.until_nothing_is_left().await;
        let read = enter(&first, "order", LockMode::Read).await;
        server.process.restart_empty();
        eventually("it is told", BOUND, || async {
            let renewed = first.renew(&read).await;
            renewed.is_err_and(|error| error.kind() == LockErrorKind::Lost)
        })
        .await;
    });
}

#[test]
fn a_full_server_lets_nobody_in_and_keeps_who_is() {
    with_server(|server| async move {
        let [first, second] = providers(&server).await;
        let read = enter(&first, "order", LockMode::Read).await;
        let (waiting, _) = entering(&second, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 1).await;
        server.raw.ask::<String>("CONFIG SET maxmemory 1").await;
        let error = try_enter(&first, "other", LockMode::Read)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("memory"), "{error}");
        first.renew(&read).await.unwrap();
        first.release(&read).await.unwrap();
        let write = waiting.await.unwrap().unwrap();
        second.renew(&write).await.unwrap();
        second.release(&write).await.unwrap();
        server.raw.ask::<String>("CONFIG SET maxmemory 0").await;
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_reader_leaves_whatever_stands_beside_the_lock() {
    with_server(|server| async move {
        let [first, second] = providers(&server).await;
        for waits in [false, true] {
            let read = enter(&first, "order", LockMode::Read).await;
            let waiter = waits.then(|| entering(&second, "order", LockMode::Write, LONG));
            if waits {
                server.raw.until(QUEUE, 1).await;
            }
            server.raw.ask::<i64>("DEL {order}:lk1:readers").await;
            server
                .raw
                .ask::<String>("SET {order}:lk1:readers book")
                .await;
            // Nobody can tell whether it had ended.
            let _ = first.release(&read).await;
            let left: i64 = server.raw.ask(READERS).await;
            assert_eq!(left, 0, "nobody would know when its lease ends");
            server.raw.ask::<i64>("DEL {order}:lk1:readers").await;
            let write = match waiter {
                Some((writing, _)) => writing.await.unwrap().unwrap(),
                None => try_enter(&second, "order", LockMode::Write).await.unwrap(),
            };
            second.release(&write).await.unwrap();
        }
    });
}

#[test]
fn a_name_that_collides_is_said() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let mutex = enter(&provider, "order.readers", LockMode::Exclusive).await;
        for mode in [LockMode::Read, LockMode::Write] {
            let error = try_enter(&provider, "order", mode).await.unwrap_err();
            // A writer only sees that there is something.
            let is_said = error.kind() == LockErrorKind::InvalidConfig;
            assert!(is_said, "{mode:?}: {error}");
        }
        provider.release(&mutex).await.unwrap();
        server.raw.ask::<String>("SET order.writer book").await;
        let error = try_enter(&provider, "order", LockMode::Read)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("`order.writer`"), "{error}");
        assert_eq!(
            server.raw.get("order.writer").await.as_deref(),
            Some("book")
        );
    });
}

#[test]
fn ten_thousand_names_leave_nothing() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let mut working = Vec::new();
        for worker in 0..50 {
            let provider = Arc::clone(&provider);
            working.push(tokio::spawn(async move {
                for number in 0..200 {
                    let mode = match number % 4 {
                        0 => LockMode::Write,
                        1 => crate::common::permits(2, 2),
                        _ => LockMode::Read,
                    };
                    let name = format!("{worker}-{number}");
                    let grant = enter(&provider, &name, mode).await;
                    provider.release(&grant).await.unwrap();
                }
            }));
        }
        for worker in working {
            worker.await.unwrap();
        }
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_crowd_of_processes_never_conflicts() {
    with_server(|server| async move {
        // Readers inside, or -1 for a writer.
        let inside = Arc::new(AtomicI64::new(0));
        let mut working = Vec::new();
        for _ in 0..4 {
            let provider = server.provider_with_long_lease().await;
            for worker in 0..6 {
                let (provider, inside) = (Arc::clone(&provider), Arc::clone(&inside));
                working.push(tokio::spawn(async move {
                    for round in 0..40 {
                        if (worker + round) % 4 == 0 {
                            let grant = enter(&provider, "order", LockMode::Write).await;
                            assert_eq!(inside.swap(-1, Ordering::SeqCst), 0);
                            tokio::task::yield_now().await;
                            assert_eq!(inside.swap(0, Ordering::SeqCst), -1);
                            provider.release(&grant).await.unwrap();
                        } else {
                            let grant = enter(&provider, "order", LockMode::Read).await;
                            assert!(inside.fetch_add(1, Ordering::SeqCst) >= 0);
                            tokio::task::yield_now().await;
                            assert!(inside.fetch_sub(1, Ordering::SeqCst) > 0);
                            provider.release(&grant).await.unwrap();
                        }
                    }
                }));
            }
        }
        for worker in working {
            worker.await.unwrap();
        }
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn many_tokens_are_granted_to_a_writer_alone() {
    with_server(|server| async move {
        let provider = connected(server.builder().lease(LONG)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        for (mode, most) in [(LockMode::Write, 32), (LockMode::Read, 1)] {
            let (request, interest) = request("order", mode, LONG, true);
            interest.want_tokens(32.try_into().unwrap());
            let grant = provider.acquire(&request).await.unwrap();
            assert_eq!(grant.tokens().get(), most);
            provider.release(&grant).await.unwrap();
        }
    });
}
