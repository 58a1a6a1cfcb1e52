//! Holders that stop, end or are cut off, as the overlap checker and a fenced register see it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::history::Held;
use lock_tests::proxy::{Flow, NetworkFault};
use lock_tests::{FencedRegister, History, boot_nanos, eventually};

use crate::common::{BOUND, lock, probe, proxied, take, token, with_server};

const LEASE: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(600);

/// The judges of a holder, and of the one after it.
struct Judges {
    history: History,
    register: FencedRegister,
}

impl Judges {
    fn over(first: (u64, u64, u64), next: (u64, u64)) -> Self {
        let judges = Self {
            history: History::default(),
            register: FencedRegister::default(),
        };
        let held = |holder: &str, from, until, token| Held {
            name: "order".to_owned(),
            holder: holder.to_owned(),
            from,
            until,
            token: Some(token),
        };
        judges
            .history
            .record(held("first", first.0, first.1, first.2));
        judges
            .history
            .record(held("next", next.0, boot_nanos(), next.1));
        judges.history.check();
        assert!(judges.register.write("order", next.1));
        assert!(!judges.register.write("order", first.2), "a stale write");
        judges
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

/// The holder believes that it holds the lock up to the end of its lease, and no longer, not even
/// when it wakes.
#[test]
fn a_frozen_holder_frees_the_lock_within_its_lease() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let mut first = probe(&server.process, LEASE, "order");
        let answer = first.ask("acquire", "acquired", BOUND).await;
        let valid = first.ask("is-lost", "valid", BOUND).await;
        first.freeze();
        let frozen = boot_nanos();
        let next = take(&provider, "order").await;
        let from = boot_nanos();
        assert!(Duration::from_nanos(from - frozen) < LEASE + BOUND / 2);
        first.thaw();
        first.ask("is-lost", "lost", BOUND).await;
        let held = (number(&answer[1]), number(&valid[1]), number(&answer[2]));
        Judges::over(held, (from, token(&next)));
        next.release().await.unwrap();
    });
}

#[test]
fn a_holder_that_is_killed_frees_the_lock_at_once() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let mut first = probe(&server.process, LONG, "order");
        let answer = first.ask("acquire", "acquired", BOUND).await;
        let valid = first.ask("is-lost", "valid", BOUND).await;
        first.kill();
        let next = take(&provider, "order").await;
        let held = (number(&answer[1]), number(&valid[1]), number(&answer[2]));
        Judges::over(held, (boot_nanos(), token(&next)));
        next.release().await.unwrap();
    });
}

/// The name of a fault, the holder's lease, and what makes the fault.
type Case = (&'static str, Duration, fn(&mut NetworkFault));

/// Either direction fails, or both, closed or silent. A holder whose connection is closed knows at
/// once; one that hears nothing any more knows by the end of its lease.
#[test]
fn a_holder_that_is_cut_off_knows_before_it_is_anothers() {
    let faults: [Case; 6] = [
        ("requests cut", LONG, |fault| fault.to_server = Flow::Cut),
        ("answers cut", LONG, |fault| fault.to_client = Flow::Cut),
        ("requests swallowed", LEASE, |fault| {
            fault.to_server = Flow::Swallow;
        }),
        ("answers swallowed", LEASE, |fault| {
            fault.to_client = Flow::Swallow;
        }),
        ("all held up", LEASE, |fault| {
            fault.to_server = Flow::Hold;
            fault.to_client = Flow::Hold;
        }),
        ("all swallowed, ends too", LEASE, |fault| {
            fault.to_server = Flow::Swallow;
            fault.to_client = Flow::Swallow;
            fault.hides_close = true;
        }),
    ];
    with_server(move |server| async move {
        for (what, lease, fault) in faults {
            let (proxy, provider) = proxied(&server.process, lease).await;
            let first = take(&provider, "order").await;
            let from = boot_nanos();
            let other = server.provider().await;
            let waiting = tokio::spawn(async move {
                let next = take(&other, "order").await;
                (boot_nanos(), next)
            });
            server.until_waiting(1).await;
            let token_of_first = token(&first);
            // Its body: it goes on for as long as it may.
            let working = tokio::spawn(async move {
                first.lost().await;
                assert!(first.is_lost());
                let until = boot_nanos();
                let error = first.release().await.unwrap_err();
                assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
                until
            });
            proxy.set(fault);
            let until = tokio::time::timeout(BOUND, working).await;
            let until = until.unwrap_or_else(|_| panic!("{what}: no loss")).unwrap();
            let (next_from, next) = waiting.await.unwrap();
            // Where the connection is closed, both learn it at the same time, or nearly.
            let until = match lease {
                LONG => {
                    let late = Duration::from_nanos(until.saturating_sub(next_from));
                    assert!(late < Duration::from_secs(1), "{what}: {late:?} late");
                    until.min(next_from)
                }
                _ => until,
            };
            println!("{what}: {} ms between", (next_from - until) / 1_000_000);
            Judges::over((from, until, token_of_first), (next_from, token(&next)));
            let (changed, counts) = (proxy.swallowed() > 0, proxy.counts());
            let broken = counts.broken.load(Ordering::Relaxed) > 0;
            let held_up = what.contains("held up");
            assert!(changed || broken || held_up, "{what}: the fault happened");
            next.release().await.unwrap();
        }
    });
}

/// A renewal counts from when it was asked for: the server has counted since then, not since its
/// answer came.
#[test]
fn a_late_answer_makes_no_longer_lease() {
    const LEASE: Duration = Duration::from_secs(3);
    with_server(|server| async move {
        // What keeps the session alive and what renews the lock are asked in turn.
        for requests in 1..=4 {
            let (proxy, provider) = proxied(&server.process, LEASE).await;
            let first = take(&provider, "order").await;
            let (from, stale) = (boot_nanos(), token(&first));
            let counts = proxy.counts();
            let late = Flow::Delay(Duration::from_millis(500));
            proxy.set(|fault| fault.to_client = late);
            for _ in 0..requests {
                let before = counts.to_server.load(Ordering::Relaxed);
                eventually("something is asked", BOUND, || async {
                    counts.to_server.load(Ordering::Relaxed) > before
                })
                .await;
            }
            // The last that the server hears of it; the answer still comes.
            proxy.set(|fault| {
                fault.to_server = Flow::Swallow;
                fault.hides_close = true;
            });
            let other = server.provider().await;
            let waiting = tokio::spawn(async move {
                let next = take(&other, "order").await;
                (boot_nanos(), next)
            });
            tokio::time::timeout(BOUND, first.lost())
                .await
                .expect("lost");
            let until = boot_nanos();
            let (next_from, next) = waiting.await.unwrap();
            println!(
                "{requests} requests: {} ms between",
                (next_from as i64 - until as i64) / 1_000_000
            );
            Judges::over((from, until, stale), (next_from, token(&next)));
            next.release().await.unwrap();
        }
    });
}

/// All answers are late, which matters to nobody: what counts is when each was asked for.
#[test]
fn answers_that_are_late_all_the_time_are_no_loss() {
    const LEASE: Duration = Duration::from_secs(6);
    with_server(|server| async move {
        let (proxy, provider) = proxied(&server.process, LEASE).await;
        let guard = take(&provider, "order").await;
        // Longer than anybody waits for an answer, which is a quarter of the lease.
        let late = Flow::Delay(Duration::from_millis(1_700));
        proxy.set(|fault| fault.to_client = late);
        let lost = tokio::time::timeout(LEASE + LEASE / 2, guard.lost()).await;
        assert!(lost.is_err(), "lost");
        assert!(proxy.counts().delayed.load(Ordering::Relaxed) > 0);
        assert_eq!(server.locks(true).await, 1);
        proxy.heal();
        guard.release().await.unwrap();
    });
}

/// The server lets a session take one lock twice; the library lets only one of two tasks have it.
#[test]
fn two_tasks_of_a_process_do_not_both_hold() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let first = take(&provider, "order").await;
        // What the server would say to the same session:
        let twice = "SELECT pg_advisory_lock(7); SELECT pg_try_advisory_lock(7)::text";
        let answer = server.process.psql("app", twice).unwrap();
        assert!(answer.ends_with("true"), "{answer}");
        let clone = std::sync::Arc::new((*provider).clone());
        for provider in [&provider, &clone, &server.provider().await] {
            let tried = lock(provider, "order").try_acquire().await.unwrap();
            assert!(tried.is_none());
        }
        let from = boot_nanos();
        let second = tokio::spawn(async move {
            let second = take(&clone, "order").await;
            (boot_nanos(), second)
        });
        let until = boot_nanos();
        let token_of_first = token(&first);
        first.release().await.unwrap();
        let (second_from, second) = second.await.unwrap();
        Judges::over((from, until, token_of_first), (second_from, token(&second)));
    });
}
