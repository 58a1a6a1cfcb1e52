//! Readers and writers, beside those of any other program on the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::postgres::advisory_key;
use lock_runtime::{DistributedRwLock, LockMode, LockProvider, PostgresProvider};
use lock_tests::eventually;
use tokio::task::JoinSet;

use crate::common::{
    BOUND, Server, assert_refused, connected, enter, entered, entering, raw, request, try_enter,
    with_server,
};

/// One name has a pair of integers for its key, the other a `bigint`.
const NAMES: [&str; 2] = ["orders:42", "a longer name"];

#[test]
fn readers_of_other_programs_share_and_writers_exclude() {
    with_server(|server| async move {
        let provider = server.provider().await;
        for name in NAMES {
            let key = advisory_key(name);
            let read = enter(&provider, name, LockMode::Read).await;
            let answers = async |sql: &str| -> bool {
                let sql = format!("SELECT {sql}({key})");
                server.raw.query_one(&sql, &[]).await.unwrap().get(0)
            };
            assert!(!answers("pg_try_advisory_lock").await, "we read");
            assert!(answers("pg_try_advisory_lock_shared").await, "it reads too");
            provider.release(&read).await.unwrap();
            let again = enter(&provider, name, LockMode::Read).await;
            assert_refused(&provider, name, LockMode::Write).await;
            provider.release(&again).await.unwrap();
            assert_refused(&provider, name, LockMode::Write).await;
            assert!(answers("pg_advisory_unlock_shared").await);
            let write = try_enter(&provider, name, LockMode::Write).await.unwrap();
            assert!(!answers("pg_try_advisory_lock_shared").await, "we write");
            provider.release(&write).await.unwrap();
            assert!(answers("pg_try_advisory_lock").await, "nobody has it");
            assert_refused(&provider, name, LockMode::Read).await;
            assert!(answers("pg_advisory_unlock").await);
        }
        assert_eq!(server.locks(true).await, 0);
    });
}

/// The session that reads would be let in again, past the writer.
#[test]
fn no_reader_passes_a_writer_of_another_program() {
    with_server(|server| async move {
        let provider = server.provider().await;
        for name in NAMES {
            let read = enter(&provider, name, LockMode::Read).await;
            assert!(provider.may_share(&read).await.unwrap(), "nobody waits");
            let writer = raw(&server.process).await;
            let sql = format!("SELECT pg_advisory_lock({})", advisory_key(name));
            let writing = tokio::spawn(async move {
                writer.batch_execute(&sql).await.unwrap();
                writer
            });
            server.until_waiting(1).await;
            assert!(!provider.may_share(&read).await.unwrap(), "it waits");
            assert_refused(&provider, name, LockMode::Read).await;
            let (late, _interest) = entering(&provider, name, LockMode::Read);
            server.until_waiting(2).await;
            provider.release(&read).await.unwrap();
            let writer = tokio::time::timeout(BOUND, writing).await;
            let writer = writer.expect("it came first").unwrap();
            assert!(!late.is_finished());
            drop(writer);
            let late = entered(late).await;
            provider.release(&late).await.unwrap();
        }
        server.until_free(BOUND).await;
    });
}

/// A grant of a process beside another one of its own is on another session, and each release ends
/// its own.
#[test]
fn grants_of_one_process_are_on_sessions_of_their_own() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let one = enter(&provider, "order", LockMode::Read).await;
        let other = enter(&provider, "order", LockMode::Read).await;
        let sessions = "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory'";
        assert_eq!(server.count(sessions).await, 2);
        provider.release(&one).await.unwrap();
        assert_eq!(server.locks(true).await, 1);
        assert_refused(&provider, "order", LockMode::Write).await;
        provider.release(&other).await.unwrap();
        assert_eq!(server.locks(true).await, 0);
    });
}

/// Where one session is all that there may be, nobody can be asked beside the reader.
#[test]
fn one_session_is_enough_for_readers_and_writers() {
    with_server(|server| async move {
        let provider = connected(server.builder().max_sessions(2)).await;
        let read = enter(&provider, "order", LockMode::Read).await;
        assert!(!provider.may_share(&read).await.unwrap(), "nobody can tell");
        assert_refused(&provider, "order", LockMode::Write).await;
        let (writing, _interest) = entering(&provider, "order", LockMode::Write);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!writing.is_finished());
        provider.release(&read).await.unwrap();
        let write = entered(writing).await;
        provider.release(&write).await.unwrap();
        let lock = DistributedRwLock::on(provider, "order");
        let mut tasks = JoinSet::new();
        for task in 0..6 {
            let lock = lock.clone();
            tasks.spawn(async move {
                for _ in 0..5 {
                    match task {
                        0 => drop(lock.write_for(BOUND).await.unwrap()),
                        _ => drop(lock.read_for(BOUND).await.unwrap()),
                    }
                }
            });
        }
        let done = tokio::time::timeout(2 * BOUND, tasks.join_all()).await;
        done.expect("all are served");
        assert!(server.sessions().await <= 2);
        server.until_free(BOUND).await;
    });
}

fn rw(provider: &Arc<PostgresProvider>) -> DistributedRwLock {
    DistributedRwLock::on(provider.clone(), "order")
}

async fn without_queue(server: &Server) -> Arc<PostgresProvider> {
    connected(server.builder().waiting_sessions(0)).await
}

/// Writers without a place in the server's queue are seen by the readers of other processes.
#[test]
fn endless_reads_let_a_writer_in_that_waits_for_a_notice() {
    with_server(|server| async move {
        let mut readers = JoinSet::new();
        let reads = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let lock = rw(&without_queue(&server).await);
            for _ in 0..3 {
                let (lock, reads) = (lock.clone(), Arc::clone(&reads));
                readers.spawn(async move {
                    loop {
                        let guard = lock.read().await.unwrap();
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        guard.release().await.unwrap();
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        let writer = rw(&without_queue(&server).await);
        for _ in 0..10 {
            let before = reads.load(Ordering::Relaxed);
            eventually("they read", BOUND, || async {
                reads.load(Ordering::Relaxed) > before + 12
            })
            .await;
            let guard = writer.write_for(BOUND).await.expect("it is not starved");
            guard.release().await.unwrap();
        }
        readers.abort_all();
    });
}

/// And the other way round.
#[test]
fn endless_writes_let_a_reader_in_that_waits_for_a_notice() {
    with_server(|server| async move {
        let mut writers = JoinSet::new();
        for _ in 0..3 {
            let lock = rw(&without_queue(&server).await);
            writers.spawn(async move {
                loop {
                    let guard = lock.write().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    guard.release().await.unwrap();
                }
            });
        }
        let reader = rw(&without_queue(&server).await);
        for _ in 0..10 {
            let guard = reader.read_for(BOUND).await.expect("it is not starved");
            guard.release().await.unwrap();
        }
        writers.abort_all();
    });
}

/// A writer that waits for a notice stands in no queue, and is seen all the same.
#[test]
fn no_reader_passes_a_writer_that_waits_for_a_notice() {
    with_server(|server| async move {
        let (holder, reader) = (server.provider().await, server.provider().await);
        let writer = without_queue(&server).await;
        let read = enter(&holder, "order", LockMode::Read).await;
        let (writing, interest) = entering(&writer, "order", LockMode::Write);
        eventually("the writer is seen", BOUND, || async {
            !holder.may_share(&read).await.unwrap()
        })
        .await;
        assert_eq!(server.locks(false).await, 0, "it stands in no queue");
        for _ in 0..5 {
            assert_refused(&reader, "order", LockMode::Read).await;
        }
        // It is forgotten when it gives up.
        interest.abandon();
        assert!(writing.await.unwrap().is_err());
        eventually("nobody waits", BOUND, || async {
            holder.may_share(&read).await.unwrap()
        })
        .await;
        let second = try_enter(&reader, "order", LockMode::Read).await.unwrap();
        reader.release(&second).await.unwrap();
        holder.release(&read).await.unwrap();
        server.until_free(BOUND).await;
    });
}

/// Whoever waits for a notice is told of the end of readers too, and of the last of them.
#[test]
fn the_release_of_a_reader_is_told() {
    with_server(|server| async move {
        let (here, there) = (server.provider().await, without_queue(&server).await);
        let mut took = Vec::new();
        for _ in 0..5 {
            let one = enter(&here, "order", LockMode::Read).await;
            let other = enter(&here, "order", LockMode::Read).await;
            let (writing, interest) = entering(&there, "order", LockMode::Write);
            eventually("it waits", BOUND, || async { interest.is_contended() }).await;
            // By now it tries by itself every 400 ms.
            tokio::time::sleep(Duration::from_millis(900)).await;
            here.release(&one).await.unwrap();
            let began = Instant::now();
            here.release(&other).await.unwrap();
            let write = entered(writing).await;
            took.push(began.elapsed());
            there.release(&write).await.unwrap();
        }
        took.sort_unstable();
        // The machine may be busy, but not each time.
        assert!(took[3] < Duration::from_millis(100), "{took:?}");
    });
}

/// A lock goes over from a writer to a reader, and on to a writer, in one step each.
#[test]
fn a_lock_is_passed_on_between_the_modes() {
    with_server(|server| async move {
        let (provider, other) = (server.provider().await, server.provider().await);
        let mut grant = enter(&provider, "order", LockMode::Write).await;
        let mut last = grant.token().unwrap();
        for mode in [
            LockMode::Read,
            LockMode::Read,
            LockMode::Write,
            LockMode::Write,
        ] {
            let (request, _interest) = request("order", mode, false);
            grant = provider.pass_on(&grant, &request).await.expect("free");
            assert!(grant.token().unwrap() > last, "{mode:?}");
            last = grant.token().unwrap();
            assert_eq!(server.locks(true).await, 1, "{mode:?}");
            assert_refused(&other, "order", LockMode::Write).await;
            match try_enter(&other, "order", LockMode::Read).await {
                Ok(read) => {
                    assert_eq!(mode, LockMode::Read);
                    other.release(&read).await.unwrap();
                }
                Err(_) => assert_eq!(mode, LockMode::Write),
            }
        }
        // Whoever waits comes first.
        let (reading, _interest) = entering(&other, "order", LockMode::Read);
        server.until_waiting(1).await;
        let (wanted, _own) = request("order", LockMode::Write, true);
        let passing = tokio::spawn({
            let provider = provider.clone();
            async move { provider.pass_on(&grant, &wanted).await }
        });
        let read = entered(reading).await;
        assert!(!passing.is_finished());
        other.release(&read).await.unwrap();
        let write = entered(passing).await;
        provider.release(&write).await.unwrap();
        server.until_free(BOUND).await;
    });
}
