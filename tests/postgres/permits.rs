//! Permits: each is a lock of its own, and whoever waits holds the turnstile.

use std::time::{Duration, Instant};

use lock_runtime::postgres::{AdvisoryKey, advisory_key};
use lock_runtime::{DistributedSemaphore, LockErrorKind, LockProvider};
use lock_tests::any_lock::permits;
use lock_tests::eventually;
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
