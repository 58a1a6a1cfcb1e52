//! Permits: each is a lock of its own, and whoever waits holds the turnstile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lock_runtime::postgres::{AdvisoryKey, advisory_key};
use lock_runtime::{DistributedSemaphore, LockErrorKind, LockProvider};
use lock_tests::any_lock::permits;
use lock_tests::eventually;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use crate::common::{
    BOUND, assert_refused, connected, enter, entered, entering, probe, try_enter, with_server,
};

/// The lock of a permit of the name `order`.
fn permit(number: u32) -> AdvisoryKey {
    advisory_key(&format!("order\0permit{number}"))
}

#[test]
fn other_programs_take_permits_by_their_keys() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let three = enter(&provider, "order", permits(3, 3)).await;
        for number in 0..3 {
            let sql = format!("SELECT pg_try_advisory_lock({})", permit(number));
            let taken: bool = server.raw.query_one(&sql, &[]).await.unwrap().get(0);
            assert!(!taken, "{number} is ours");
        }
        provider.release(&three).await.unwrap();
        let sql = format!("SELECT pg_advisory_lock({})", permit(1));
        server.raw.batch_execute(&sql).await.unwrap();
        assert_refused(&provider, "order", permits(3, 3)).await;
        let two = enter(&provider, "order", permits(2, 3)).await;
        assert_refused(&provider, "order", permits(1, 3)).await;
        provider.release(&two).await.unwrap();
        assert_eq!(server.locks(true).await, 1, "that of the other program");
        // Whoever stands at the turnstile comes first.
        let turnstile = advisory_key("order\0permits");
        let sql = format!("SELECT pg_advisory_lock({turnstile})");
        server.raw.batch_execute(&sql).await.unwrap();
        assert_refused(&provider, "order", permits(1, 3)).await;
    });
}

/// The server would give a session the same permit again.
#[test]
fn two_permits_of_one_session_are_two() {
    with_server(|server| async move {
        let provider = server.provider().await;
        for _ in 0..20 {
            let one = try_enter(&provider, "order", permits(1, 2)).await.unwrap();
            let other = try_enter(&provider, "order", permits(1, 2)).await.unwrap();
            let distinct = "SELECT count(DISTINCT objid::int8) FROM pg_locks \
                            WHERE locktype = 'advisory'";
            assert_eq!(server.count(distinct).await, 2);
            assert_refused(&provider, "order", permits(1, 2)).await;
            provider.release(&one).await.unwrap();
            provider.release(&other).await.unwrap();
            assert_eq!(server.locks(true).await, 0);
        }
    });
}

/// Whoever wants three goes on waiting while one after another is released.
#[test]
fn who_wants_many_collects_them() {
    with_server(|server| async move {
        let (holder, other) = (server.provider().await, server.provider().await);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(enter(&holder, "order", permits(1, 3)).await);
        }
        let (waiting, _interest) = entering(&other, "order", permits(3, 3));
        // The turnstile, and what was collected.
        for taken in [4, 4, 4] {
            eventually("so many locks", BOUND, || async {
                server.locks(true).await == taken
            })
            .await;
            assert!(!waiting.is_finished());
            assert_refused(&holder, "order", permits(1, 3)).await;
            let one = held.pop().unwrap();
            holder.release(&one).await.unwrap();
        }
        let three = entered(waiting).await;
        eventually("the turnstile is released", BOUND, || async {
            server.locks(true).await == 3
        })
        .await;
        other.release(&three).await.unwrap();
        server.until_free(BOUND).await;
    });
}

/// Many more wait than there are sessions, and the sessions are few all the same.
#[test]
fn waiters_for_permits_need_no_session_each() {
    with_server(|server| async move {
        for waiting_sessions in [16, 1, 0] {
            let builder = || server.builder().waiting_sessions(waiting_sessions);
            let mut tasks = JoinSet::new();
            for _ in 0..2 {
                let provider = connected(builder()).await;
                for task in 0..12 {
                    let name = format!("order:{}", task % 3);
                    let semaphore = DistributedSemaphore::on(provider.clone(), name, 2);
                    tasks.spawn(async move {
                        for _ in 0..6 {
                            let take = 1 + task % 2;
                            let held = semaphore.acquire_many_for(take, 2 * BOUND).await;
                            tokio::time::sleep(Duration::from_millis(2)).await;
                            held.expect("its turn comes").release().await.unwrap();
                        }
                    });
                }
            }
            tasks.join_all().await;
            assert!(server.sessions().await <= 20, "{waiting_sessions}");
            server.until_free(BOUND).await;
        }
    });
}

/// Whoever waits hears of a release, and does not come upon it by a look later.
#[test]
fn a_released_permit_is_handed_over_at_once() {
    with_server(|server| async move {
        let (here, there) = (server.provider().await, server.provider().await);
        let mut took = Vec::new();
        for _ in 0..20 {
            let held = enter(&here, "order", permits(1, 1)).await;
            let (waiting, interest) = entering(&there, "order", permits(1, 1));
            // One for the permit, and one for the turnstile.
            eventually("it waits at the turnstile", BOUND, || async {
                interest.is_contended() && server.locks(true).await == 2
            })
            .await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            let began = Instant::now();
            here.release(&held).await.unwrap();
            let one = entered(waiting).await;
            took.push(began.elapsed());
            there.release(&one).await.unwrap();
        }
        took.sort_unstable();
        // Looks are 75 ms apart at least. The machine may be busy, but not each time.
        assert!(took[10] < Duration::from_millis(25), "{took:?}");
    });
}

/// Nobody is told when a session ends, so whoever waits looks by himself.
#[test]
fn permits_of_a_session_that_ends_are_found() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let mut killed = probe(&server.process, Duration::from_secs(60), "order");
        killed.tell("as 2/2");
        killed.ask("acquire", "acquired", BOUND).await;
        let (waiting, interest) = entering(&provider, "order", permits(1, 2));
        eventually("it waits", BOUND, || async { interest.is_contended() }).await;
        let began = Instant::now();
        killed.kill();
        let one = entered(waiting).await;
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
        provider.release(&one).await.unwrap();
        server.until_free(BOUND).await;
    });
}

/// Where nobody may hold so many locks, that is said before any is taken.
#[test]
fn more_permits_than_locks_are_refused() {
    with_server(|server| async move {
        let provider = connected(server.builder().max_locks(3)).await;
        let error = try_enter(&provider, "order", permits(4, 10))
            .await
            .map(drop);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("`max_locks`"), "{error}");
        let two = enter(&provider, "order", permits(2, 10)).await;
        provider.release(&two).await.unwrap();
        assert_eq!(server.locks(true).await, 0);
    });
}

/// A request asks for a few permits at first. If they are taken, it asks for the others.
#[test]
fn the_last_free_permit_of_many_is_found() {
    with_server(|server| async move {
        let (one, other) = (server.provider().await, server.provider().await);
        let mode = permits(1, 20);
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(try_enter(&one, "order", mode).await.expect("one is free"));
        }
        assert_refused(&other, "order", mode).await;
        one.release(&held.swap_remove(7)).await.unwrap();
        let last = try_enter(&other, "order", mode).await.expect("it is free");
        assert_refused(&one, "order", mode).await;
        other.release(&last).await.unwrap();
    });
}

/// What this process gives back in the background is no other holder, however long that takes.
#[test]
fn a_wait_that_was_given_up_is_no_holder() {
    with_server(|server| async move {
        let elsewhere = server.provider().await;
        let elsewhere = DistributedSemaphore::on(elsewhere, "order", 1);
        let lock = DistributedSemaphore::on(server.provider().await, "order", 1);
        let held = elsewhere.acquire().await.unwrap();
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire_for(Duration::from_millis(700)).await.map(drop) }
        });
        // The server process that has the turnstile for the waiter stops before it releases it, but
        // after it has answered the claim that follows the wait: else the waiter would miss that.
        let turnstile = format!(
            "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) \
             WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND state = 'idle' \
             AND query LIKE '%pg_current_xact_id()%' \
             AND (classid::bigint << 32) | objid::bigint = {}",
            advisory_key("order\0permits")
        );
        let stopped = OnceLock::new();
        eventually("it waits at the turnstile", BOUND, || async {
            match server.raw.query_opt(&turnstile, &[]).await.unwrap() {
                Some(row) => stopped.set(row.get::<_, i32>(0)).is_ok(),
                None => false,
            }
        })
        .await;
        let stopped = Pid::from_raw(*stopped.get().unwrap()).unwrap();
        kill_process(stopped, Signal::STOP).unwrap();
        let late = waiting.await.unwrap().unwrap_err();
        assert_eq!(late.kind(), LockErrorKind::TimedOut, "{late}");
        held.release().await.unwrap();
        let trying = tokio::spawn(async move { lock.try_acquire().await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill_process(stopped, Signal::CONT).unwrap();
        let free = trying.await.unwrap().unwrap();
        free.expect("nobody has it").release().await.unwrap();
    });
}

/// Somebody who wants more than is free is no holder of what he was given for a moment.
#[test]
fn who_is_refused_many_is_in_nobodys_way() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let held = enter(&holder, "order", permits(2, 4)).await;
        let over = Arc::new(AtomicBool::new(false));
        let mut refused = JoinSet::new();
        for _ in 0..2 {
            let (provider, over) = (server.provider().await, Arc::clone(&over));
            refused.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    assert_refused(&provider, "order", permits(3, 4)).await;
                }
            });
        }
        let provider = server.provider().await;
        for take in [1, 2] {
            for round in 0..300 {
                match try_enter(&provider, "order", permits(take, 4)).await {
                    Ok(free) => provider.release(&free).await.unwrap(),
                    Err(error) => panic!("{take}, round {round}: {error}"),
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        refused.join_all().await;
        holder.release(&held).await.unwrap();
    });
}
