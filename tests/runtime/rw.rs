//! Reader–writer locks: who enters beside whom, in which order, and by how many grants.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider, entries_under};
use lock_runtime::{
    DistributedLock, DistributedRwLock, DistributedSemaphore, InProcessProvider, LockErrorKind,
    LockProvider, RwLockReadGuard,
};
use lock_tests::{eventually, poll_once, unique};
use tokio::sync::mpsc;

use crate::{BOUND, nothing_held, run, shared};

/// A span after which a process must ask again whether a writer waits.
const WINDOW: Duration = Duration::from_millis(10);

fn rw_on(provider: &TestProvider, name: &str) -> DistributedRwLock {
    DistributedRwLock::on(shared(provider.clone()), name)
}

/// Runs a test on a server, and in this process alone.
fn on_both<F: Future<Output = ()> + Send + 'static>(
    test: impl Fn(Arc<dyn LockProvider>) -> F + Send + 'static,
) {
    run(async move {
        let provider = TestProvider::new();
        test(shared(provider.clone())).await;
        nothing_held(&provider).await;
        test(shared(InProcessProvider::new())).await;
    });
}

#[test]
fn a_writer_enters_only_after_the_last_of_two_readers() {
    on_both(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let (one, another) = (lock.read().await.unwrap(), lock.read().await.unwrap());
        assert!(lock.try_write().await.unwrap().is_none());
        let short = Duration::from_millis(20);
        let late = lock.write_for(short).await.unwrap_err();
        assert_eq!(late.kind(), LockErrorKind::TimedOut, "others read");
        let mut writing = Box::pin(lock.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        let late = lock.read_for(short).await.unwrap_err();
        assert_eq!(
            late.kind(),
            LockErrorKind::TimedOut,
            "a writer waits for them"
        );
        one.release().await.unwrap();
        assert!(poll_once(writing.as_mut()).await.is_none());
        assert!(
            lock.try_read().await.unwrap().is_none(),
            "a writer waits, so no reader comes in"
        );
        another.release().await.unwrap();
        let written = writing.await.unwrap();
        assert!(lock.try_read().await.unwrap().is_none(), "somebody writes");
        assert!(lock.try_write().await.unwrap().is_none(), "somebody writes");
        written.release().await.unwrap();
        drop(lock.read().await.unwrap());
        drop(lock.try_write_for(BOUND).await.unwrap().unwrap());
    });
}

#[test]
fn readers_and_writers_are_served_in_the_order_of_their_coming() {
    on_both(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let first = lock.write().await.unwrap();
        let (served, mut order) = mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for (number, mode) in "rrwrwwrr".chars().enumerate() {
            let (lock, served) = (lock.clone(), served.clone());
            let mut acquiring = Box::pin(async move {
                match mode {
                    'r' => {
                        let guard = lock.read().await.unwrap();
                        served.send(number).unwrap();
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        drop(guard);
                    }
                    _ => {
                        let guard = lock.write().await.unwrap();
                        served.send(number).unwrap();
                        tokio::task::yield_now().await;
                        drop(guard);
                    }
                }
            });
            assert!(poll_once(acquiring.as_mut()).await.is_none());
            tasks.push(tokio::spawn(acquiring));
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        drop(served);
        let mut seen = Vec::new();
        while let Some(number) = order.recv().await {
            seen.push(number);
        }
        // Neighbouring readers come in together, so their order among each other is free.
        seen[0..2].sort_unstable();
        seen[6..8].sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
    });
}

#[test]
fn neighbouring_readers_enter_together() {
    on_both(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let first = lock.write().await.unwrap();
        let mut reading: Vec<_> = (0..3).map(|_| Box::pin(lock.read())).collect();
        for one in &mut reading {
            assert!(poll_once(one.as_mut()).await.is_none());
        }
        let mut writing = Box::pin(lock.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        let mut late = Box::pin(lock.read());
        assert!(poll_once(late.as_mut()).await.is_none());
        drop(first);
        let mut guards = Vec::new();
        for one in reading {
            guards.push(one.await.unwrap());
        }
        assert!(poll_once(writing.as_mut()).await.is_none(), "three read");
        assert!(poll_once(late.as_mut()).await.is_none(), "a writer waits");
        drop(guards);
        let written = writing.await.unwrap();
        assert!(poll_once(late.as_mut()).await.is_none());
        drop(written);
        drop(late.await.unwrap());
    });
}

#[test]
fn fifty_readers_share_one_grant() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "shared");
        let mut tasks = Vec::new();
        for _ in 0..50 {
            let lock = lock.clone();
            tasks.push(tokio::spawn(async move { lock.read().await.unwrap() }));
        }
        let mut guards = Vec::new();
        for task in tasks {
            guards.push(task.await.unwrap());
        }
        assert_eq!(provider.calls(Operation::Acquire), 1);
        assert_eq!(provider.holders("shared"), 1);
        let token = guards[0].fencing_token();
        assert!(token.is_some());
        assert!(guards.iter().all(|guard| guard.fencing_token() == token));
        // After the window one question lets more of them in.
        tokio::time::sleep(WINDOW * 2).await;
        let more: Vec<_> = (0..50).map(|_| lock.read()).collect();
        for reading in more {
            guards.push(reading.await.unwrap());
        }
        assert_eq!(provider.calls(Operation::Acquire), 1);
        assert_eq!(provider.holders("shared"), 1);
        let asked = provider.calls(Operation::MayShare);
        assert!((1..=10).contains(&asked), "it asked {asked} times");
        drop(guards);
        nothing_held(&provider).await;
        assert_eq!(provider.calls(Operation::Release), 1);
    });
}

#[test]
fn a_writer_elsewhere_is_not_kept_out_by_endless_reads() {
    run(async {
        let provider = TestProvider::new();
        let here = rw_on(&provider, "endless");
        let there = rw_on(&provider.another_process(), "endless");
        let reads = Arc::new(AtomicUsize::new(0));
        let mut readers = Vec::new();
        for _ in 0..4 {
            let (here, reads) = (here.clone(), Arc::clone(&reads));
            readers.push(tokio::spawn(async move {
                loop {
                    let guard = here.read().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    reads.fetch_add(1, Ordering::Relaxed);
                    drop(guard);
                }
            }));
        }
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            let began = Instant::now();
            let guard = there.write().await.unwrap();
            longest = longest.max(began.elapsed());
            let reads_before = reads.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(reads.load(Ordering::Relaxed), reads_before);
            guard.release().await.unwrap();
        }
        for reader in &readers {
            reader.abort();
        }
        // The window and the longest read, and much for a machine that is busy.
        assert!(longest < Duration::from_millis(500), "{longest:?}");
        let reads = u64::try_from(reads.load(Ordering::Relaxed)).unwrap();
        assert!(reads > 100, "{reads} reads");
        let asked = provider.calls(Operation::Acquire);
        assert!(asked < reads, "{asked} requests for {reads} reads");
    });
}

#[test]
fn a_writer_closes_the_window_for_readers_elsewhere_too() {
    run(async {
        let provider = TestProvider::new();
        let here = rw_on(&provider, "place");
        let there = rw_on(&provider.another_process(), "place");
        let reading = here.read().await.unwrap();
        let mut writing = Box::pin(here.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        eventually("the writer stands in the server's queue", BOUND, || async {
            there.try_read().await.unwrap().is_none()
        })
        .await;
        let mut late = Box::pin(there.read());
        assert!(poll_once(late.as_mut()).await.is_none());
        drop(reading);
        drop(writing.await.unwrap());
        drop(late.await.unwrap());
        nothing_held(&provider).await;
    });
}

#[test]
fn readers_go_in_turn_with_a_writer_elsewhere() {
    run(async {
        let provider = TestProvider::new();
        let here = rw_on(&provider, "rwr");
        let there = rw_on(&provider.another_process(), "rwr");
        let first = here.read().await.unwrap();
        let mut writing = Box::pin(there.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        tokio::time::sleep(WINDOW * 2).await;
        assert!(
            here.try_read().await.unwrap().is_none(),
            "a writer waits elsewhere"
        );
        let mut second = Box::pin(here.read());
        assert!(poll_once(second.as_mut()).await.is_none());
        tokio::time::sleep(WINDOW).await;
        assert!(poll_once(second.as_mut()).await.is_none());
        drop(first);
        let written = writing.await.unwrap();
        assert!(poll_once(second.as_mut()).await.is_none());
        drop(written);
        drop(second.await.unwrap());
        nothing_held(&provider).await;
    });
}

#[test]
fn a_loss_reaches_every_reader() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "lost");
        let guards: Vec<RwLockReadGuard> = vec![
            lock.read().await.unwrap(),
            lock.read().await.unwrap(),
            lock.read().await.unwrap(),
        ];
        assert_eq!(provider.holders("lost"), 1);
        let signals: Vec<_> = guards.iter().map(RwLockReadGuard::lost).collect();
        provider.lose("lost");
        for signal in signals {
            tokio::time::timeout(Duration::from_millis(50), signal)
                .await
                .expect("every one is told");
        }
        assert!(guards.iter().all(RwLockReadGuard::is_lost));
        for guard in guards {
            let released = guard.release().await;
            assert_eq!(released.unwrap_err().kind(), LockErrorKind::Lost);
        }
        // The next one is served as ever.
        drop(lock.write_for(BOUND).await.unwrap());
        nothing_held(&provider).await;
    });
}

#[test]
fn one_renewal_keeps_all_readers() {
    run(async {
        let lease = Duration::from_millis(300);
        let provider = TestProvider::new().with_lease(lease);
        let lock = rw_on(&provider, "renewed");
        let guards = [lock.read().await.unwrap(), lock.read().await.unwrap()];
        tokio::time::sleep(lease * 2).await;
        assert!(guards.iter().all(|guard| !guard.is_lost()));
        let renewals = provider.calls(Operation::Renew);
        assert!((4..=9).contains(&renewals), "{renewals} renewals");
        provider.freeze(true);
        for guard in &guards {
            guard.lost().await;
        }
        provider.freeze(false);
        drop(guards);
    });
}

#[test]
fn the_grant_stays_until_its_last_reader_in_every_order() {
    run(async {
        let provider = TestProvider::new();
        let orders = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        for order in orders {
            let lock = rw_on(&provider, "orders");
            let other = rw_on(&provider.another_process(), "orders");
            let mut guards = Vec::new();
            for _ in 0..3 {
                guards.push(Some(lock.read().await.unwrap()));
            }
            let released = provider.calls(Operation::Release);
            for (left, at) in (0..3).rev().zip(order) {
                assert!(provider.is_held("orders"));
                assert!(other.try_write().await.unwrap().is_none());
                let guard = guards[at].take().unwrap();
                guard.release().await.unwrap();
                let more = usize::from(left == 0);
                assert_eq!(provider.calls(Operation::Release), released + more as u64);
            }
            drop(other.write().await.unwrap());
        }
        nothing_held(&provider).await;
    });
}

#[test]
fn tokens_are_in_the_order_of_conflicting_grants() {
    on_both(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let mut last = None;
        for _ in 0..3 {
            let written = lock.write().await.unwrap();
            assert!(written.fencing_token() > last);
            last = written.fencing_token();
            written.release().await.unwrap();
            let read = [lock.read().await.unwrap(), lock.read().await.unwrap()];
            assert!(read[0].fencing_token() > last);
            assert_eq!(read[0].fencing_token(), read[1].fencing_token());
            last = read[0].fencing_token();
            // The same for readers who had to wait.
            let mut writing = Box::pin(lock.write());
            assert!(poll_once(writing.as_mut()).await.is_none());
            drop(read);
            let written = writing.await.unwrap();
            let mut reading = Box::pin(lock.read());
            assert!(poll_once(reading.as_mut()).await.is_none());
            assert!(written.fencing_token() > last);
            last = written.fencing_token();
            drop(written);
            let read = reading.await.unwrap();
            assert!(read.fencing_token() > last);
            last = read.fencing_token();
        }
    });
    run(async {
        let provider = TestProvider::new();
        let here = rw_on(&provider, "tokens");
        let there = rw_on(&provider.another_process(), "tokens");
        let mut last = None;
        for _ in 0..3 {
            for lock in [&here, &there] {
                let written = lock.write().await.unwrap();
                assert!(written.fencing_token() > last);
                last = written.fencing_token();
                drop(written);
                let read = lock.read().await.unwrap();
                assert!(read.fencing_token() > last);
                last = read.fencing_token();
            }
        }
    });
}

#[test]
fn writers_hand_over_inside_the_process_with_tokens_of_their_own() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "hand-over");
        let first = lock.write().await.unwrap();
        let mut waiting: Vec<_> = (0..8).map(|_| Box::pin(lock.write())).collect();
        for writing in &mut waiting {
            assert!(poll_once(writing.as_mut()).await.is_none());
        }
        let mut last = first.fencing_token();
        drop(first);
        for writing in waiting {
            let written = writing.await.unwrap();
            assert!(written.fencing_token() > last);
            last = written.fencing_token();
        }
        let asked = provider.calls(Operation::Acquire);
        assert!(asked <= 3, "{asked} requests for 9 writes");
    });
}

#[test]
fn a_reader_follows_a_writer_in_one_step() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "step");
        let written = lock.write().await.unwrap();
        let mut reading: Vec<_> = (0..4).map(|_| Box::pin(lock.read())).collect();
        for one in &mut reading {
            assert!(poll_once(one.as_mut()).await.is_none());
        }
        written.release().await.unwrap();
        let mut guards = Vec::new();
        for one in reading {
            guards.push(one.await.unwrap());
        }
        assert_eq!(provider.holders("step"), 1);
        assert_eq!(provider.calls(Operation::Acquire), 2);
        drop(guards);
        nothing_held(&provider).await;
    });
}

#[test]
fn kinds_are_not_mixed() {
    on_both(|provider| async move {
        let name = unique();
        let rw = DistributedRwLock::on(Arc::clone(&provider), name.as_str());
        let mutex = DistributedLock::on(Arc::clone(&provider), name.as_str());
        let permits = DistributedSemaphore::on(provider, name.as_str(), 3);
        let read = rw.read().await.unwrap();
        let refused = mutex.acquire().await.unwrap_err();
        assert_eq!(refused.kind(), LockErrorKind::InvalidConfig);
        let expected = format!("`{name}` is a reader–writer lock elsewhere in this process");
        assert!(refused.to_string().contains(&expected), "{refused}");
        let refused = permits.acquire().await.unwrap_err();
        assert_eq!(refused.kind(), LockErrorKind::InvalidConfig);
        drop(read);
        drop(rw);
        eventually("the name is forgotten", BOUND, || async {
            entries_under(&name) == 0
        })
        .await;
        let held = mutex.acquire().await.unwrap();
        let refused = permits.acquire().await.unwrap_err().to_string();
        assert!(refused.contains("is a mutex elsewhere"), "{refused}");
        drop(held);
    });
}

#[test]
fn a_write_stays_for_its_min_hold() {
    on_both(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let hold = Duration::from_millis(120);
        let began = Instant::now();
        let kept = lock.clone().min_hold(hold);
        kept.write().await.unwrap().release().await.unwrap();
        assert!(began.elapsed() < hold, "the release does not wait");
        assert!(lock.try_read().await.unwrap().is_none());
        assert!(lock.try_write().await.unwrap().is_none());
        drop(lock.read().await.unwrap());
        assert!(began.elapsed() >= hold);
        // Reads are free at once.
        let began = Instant::now();
        drop(kept.read().await.unwrap());
        drop(lock.write().await.unwrap());
        assert!(began.elapsed() < hold);
    });
}

#[test]
fn contention_is_told_only_where_a_holder_was_seen() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "kinds");
        let elsewhere = rw_on(&provider.another_process(), "kinds");
        let short = Duration::from_millis(60);
        macro_rules! kind {
            ($acquiring:expr) => {
                $acquiring.await.map(drop).unwrap_err().kind()
            };
        }
        // Held elsewhere.
        let written = elsewhere.write().await.unwrap();
        assert_eq!(
            kind!(lock.read_for(Duration::ZERO)),
            LockErrorKind::Contended
        );
        assert_eq!(
            kind!(lock.write_for(Duration::ZERO)),
            LockErrorKind::Contended
        );
        assert_eq!(kind!(lock.read_for(short)), LockErrorKind::TimedOut);
        assert_eq!(kind!(lock.write_for(short)), LockErrorKind::TimedOut);
        written.release().await.unwrap();
        // Held here.
        let read = lock.read().await.unwrap();
        assert_eq!(
            kind!(lock.write_for(Duration::ZERO)),
            LockErrorKind::Contended
        );
        assert_eq!(kind!(lock.write_for(short)), LockErrorKind::TimedOut);
        // A reader who waits behind a writer for those who read.
        let mut writing = Box::pin(lock.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        assert_eq!(kind!(lock.read_for(short)), LockErrorKind::TimedOut);
        drop(writing);
        // A server that hangs says nothing about a writer.
        tokio::time::sleep(WINDOW).await;
        eventually("no call is under way", BOUND, || async {
            lock.try_read().await.is_ok_and(|guard| guard.is_some())
        })
        .await;
        tokio::time::sleep(WINDOW).await;
        provider.freeze(true);
        assert_eq!(
            kind!(lock.read_for(short)),
            LockErrorKind::ProviderUnavailable
        );
        provider.freeze(false);
        drop(read);
        nothing_held(&provider).await;
        provider.freeze(true);
        for writes in [false, true] {
            let kind = match writes {
                true => kind!(lock.write_for(short)),
                false => kind!(lock.read_for(short)),
            };
            assert_eq!(kind, LockErrorKind::ProviderUnavailable);
        }
        provider.freeze(false);
        nothing_held(&provider).await;
    });
}

#[test]
fn a_question_that_fails_counts_as_a_writer() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "fails");
        let first = lock.read().await.unwrap();
        tokio::time::sleep(WINDOW).await;
        provider.fail_next(Operation::MayShare, 1);
        let second = lock.read().await.unwrap();
        assert_eq!(provider.holders("fails"), 2, "it has a grant of its own");
        assert!(second.fencing_token() > first.fencing_token());
        drop(first);
        assert!(!second.is_lost());
        eventually("the first grant is given back", BOUND, || async {
            provider.holders("fails") == 1
        })
        .await;
        tokio::time::sleep(WINDOW).await;
        provider.fail_next(Operation::MayShare, 1);
        let refused = lock.try_read().await.unwrap_err();
        assert_eq!(refused.kind(), LockErrorKind::ProviderUnavailable);
        drop(second);
        nothing_held(&provider).await;
    });
}

#[test]
fn readers_may_leave_while_the_server_is_asked() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "leaves");
        let first = lock.read().await.unwrap();
        tokio::time::sleep(WINDOW).await;
        provider.delay(Operation::MayShare, Duration::from_millis(20));
        let mut second = Box::pin(lock.read());
        assert!(poll_once(second.as_mut()).await.is_none());
        first.release().await.unwrap();
        assert!(
            provider.is_held("leaves"),
            "the question is about this grant"
        );
        let second = second.await.unwrap();
        assert_eq!(provider.calls(Operation::Acquire), 1);
        drop(second);
        nothing_held(&provider).await;
        // The same where nobody waits for the answer any more.
        let first = lock.read().await.unwrap();
        tokio::time::sleep(WINDOW).await;
        let mut second = Box::pin(lock.read());
        assert!(poll_once(second.as_mut()).await.is_none());
        drop((first, second));
        nothing_held(&provider).await;
    });
}

#[test]
fn a_call_serves_whoever_is_next() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "next");
        provider.delay(Operation::Acquire, Duration::from_millis(30));
        for [first, second] in [["w", "w"], ["r", "r"], ["w", "r"], ["r", "w"]] {
            let asked = provider.calls(Operation::Acquire);
            let begin = |mode: &str| {
                let (lock, writes) = (lock.clone(), mode == "w");
                Box::pin(async move {
                    match writes {
                        true => drop(lock.write().await.unwrap()),
                        false => drop(lock.read().await.unwrap()),
                    }
                })
            };
            let (mut leaves, mut stays) = (begin(first), begin(second));
            assert!(poll_once(leaves.as_mut()).await.is_none());
            assert!(poll_once(stays.as_mut()).await.is_none());
            eventually("the call is under way", BOUND, || async {
                provider.calls(Operation::Acquire) == asked + 1
            })
            .await;
            drop(leaves);
            stays.await;
            let calls = provider.calls(Operation::Acquire) - asked;
            let expected = if first == second { 1 } else { 2 };
            assert_eq!(calls, expected, "{first} leaves before {second}");
            nothing_held(&provider).await;
        }
    });
}

#[test]
fn a_max_hold_of_one_reader_ends_no_other_s_lease() {
    use lock_runtime::__private::{Output, Request};
    run(async {
        let lease = Duration::from_millis(600);
        let provider = TestProvider::new().with_lease(lease);
        let lock = rw_on(&provider, "max-hold");
        let kept = lock.read().await.unwrap();
        let locks = shared(provider.clone());
        let body = std::pin::pin!(Some(async { Ok(7) }));
        let (output, body) = Output::of(body);
        let ran: Result<i32, lock_runtime::LockError> = Request::new("test", lock.name().clone())
            .read()
            .max_hold(Duration::from_millis(50))
            .on(&locks)
            .run(output.keep(), body, Err)
            .await;
        assert_eq!(ran.unwrap(), 7);
        assert_eq!(provider.holders("max-hold"), 1, "they shared it");
        // A second after `max_hold` a body's own lease is not renewed any more.
        tokio::time::sleep(Duration::from_millis(1_050) + lease * 2).await;
        assert!(!kept.is_lost());
        drop(kept);
    });
}

#[test]
fn a_writer_waits_for_those_who_read_under_a_lost_grant() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "lingers");
        let guard = lock.read().await.unwrap();
        let mut writing = Box::pin(lock.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        eventually("the writer stands in the server's queue", BOUND, || async {
            rw_on(&provider.another_process(), "lingers")
                .try_read()
                .await
                .unwrap()
                .is_none()
        })
        .await;
        provider.lose("lingers");
        guard.lost().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(provider.is_held("lingers"), "the server has granted it");
        assert!(poll_once(writing.as_mut()).await.is_none());
        drop(guard);
        drop(writing.await.unwrap());
        nothing_held(&provider).await;
        // One that is not dropped is waited for no longer than a second.
        let guard = lock.read().await.unwrap();
        let mut writing = Box::pin(lock.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        let began = Instant::now();
        provider.lose("lingers");
        drop(writing.await.unwrap());
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(guard);
        nothing_held(&provider).await;
    });
}

#[test]
fn grants_that_come_too_late_fail_after_a_few() {
    run(async {
        let lease = Duration::from_millis(100);
        let slow = TestProvider::new().with_lease(lease);
        slow.delay(Operation::Acquire, lease * 2);
        let permits = DistributedSemaphore::on(shared(slow.clone()), "late-permits", 2);
        let lock = rw_on(&slow, "late");
        let began = Instant::now();
        let first = lock.read().await.unwrap_err();
        // Three grants, with a pause after each of the first two.
        assert!(began.elapsed() >= lease * 6 + Duration::from_millis(50 + 100));
        for error in [
            first,
            lock.write().await.unwrap_err(),
            permits.acquire().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
            assert!(error.to_string().contains("had ended when it arrived"));
        }
        slow.delay(Operation::Acquire, Duration::ZERO);
        drop(lock.read().await.unwrap());
        drop(permits.acquire().await.unwrap());
        nothing_held(&slow).await;
    });
}

#[test]
fn one_who_only_tries_shares_what_the_call_of_another_is_told() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "tries");
        let elsewhere = rw_on(&provider.another_process(), "tries");
        let held = elsewhere.write().await.unwrap();
        provider.delay(Operation::Acquire, Duration::from_millis(30));
        let mut waiting = Box::pin(lock.write());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        let mut reads = Box::pin(lock.try_read());
        let mut writes = Box::pin(lock.try_write());
        assert!(
            poll_once(reads.as_mut()).await.is_none(),
            "nothing is known yet"
        );
        assert!(poll_once(writes.as_mut()).await.is_none());
        assert!(reads.await.unwrap().is_none());
        assert!(writes.await.unwrap().is_none());
        let asked = provider.calls(Operation::Acquire);
        assert!(
            asked <= 3,
            "{asked} requests, where one of each process would do"
        );
        held.release().await.unwrap();
        drop(waiting.await.unwrap());
        nothing_held(&provider).await;
    });
}

#[test]
fn a_writer_who_left_is_in_no_reader_s_way() {
    on_both(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let reading = lock.read().await.unwrap();
        for _ in 0..20 {
            let mut writing = Box::pin(lock.write());
            assert!(poll_once(writing.as_mut()).await.is_none());
            // The server names the reader to the writer's call.
            tokio::time::sleep(Duration::from_millis(2)).await;
            drop(writing);
            assert!(lock.try_read().await.unwrap().is_some(), "others only read");
        }
        reading.release().await.unwrap();
    });
}
