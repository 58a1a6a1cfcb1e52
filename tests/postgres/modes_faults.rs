//! Faults of network and server, for readers, writers and permits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockMode, LockProvider, PostgresProvider};
use lock_tests::any_lock::permits;
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, eventually};

use crate::common::{
    BOUND, LONG, connected, enter, entered, entering, request, through, try_enter, with_server,
};

fn modes() -> [LockMode; 5] {
    [
        LockMode::Read,
        LockMode::Write,
        LockMode::Upgradeable,
        permits(1, 3),
        permits(2, 3),
    ]
}

/// What keeps this mode waiting.
fn opposite(mode: LockMode) -> LockMode {
    match mode {
        LockMode::Permits { .. } => permits(3, 3),
        _ => LockMode::Write,
    }
}

#[test]
fn a_lost_answer_is_undone() {
    with_server(|server| async move {
        for mode in modes() {
            let proxy = FaultProxy::start(server.process.port()).await;
            let builder = through(&proxy).lease(LONG);
            let builder = builder.response_timeout(Duration::from_millis(300));
            let provider = connected(builder).await;
            let warm = enter(&provider, "order", mode).await;
            provider.release(&warm).await.unwrap();
            proxy.set(|fault| fault.to_client = Flow::Swallow);
            let error = try_enter(&provider, "order", mode).await.map(drop);
            let error = error.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            assert!(proxy.swallowed() > 0, "an answer was lost");
            proxy.heal();
            server.until_free(BOUND).await;
            // A new session may be needed first.
            eventually("it is had again", BOUND, || async {
                match try_enter(&provider, "order", mode).await {
                    Ok(grant) => provider.release(&grant).await.is_ok(),
                    Err(error) => {
                        assert_ne!(error.kind(), LockErrorKind::Contended, "{mode:?}");
                        false
                    }
                }
            })
            .await;
        }
    });
}

/// The release is carried out, or its session is ended.
#[test]
fn a_lost_answer_to_a_release_leaves_nothing() {
    with_server(|server| async move {
        for mode in modes() {
            for flow in [Flow::Swallow, Flow::Hold] {
                let proxy = FaultProxy::start(server.process.port()).await;
                let builder = through(&proxy).lease(LONG);
                let builder = builder.response_timeout(Duration::from_millis(300));
                let provider = connected(builder).await;
                let grant = enter(&provider, "order", mode).await;
                proxy.set(|fault| fault.to_client = flow);
                assert!(provider.release(&grant).await.is_err(), "{mode:?}");
                proxy.heal();
                server.until_free(BOUND).await;
            }
        }
    });
}

/// A lock that is passed on is given back as well, whichever way the session has it by then.
#[test]
fn a_late_answer_to_passing_on_leaves_nothing() {
    with_server(|server| async move {
        let elsewhere = server.provider().await;
        let both = [LockMode::Read, LockMode::Write];
        for (from, to) in [(both[0], both[1]), (both[1], both[0]), (both[0], both[0])] {
            let proxy = FaultProxy::start(server.process.port()).await;
            let builder = through(&proxy).lease(LONG);
            let builder = builder.response_timeout(Duration::from_millis(300));
            let provider = connected(builder).await;
            // So the session is not ended for want of locks.
            let other = enter(&provider, "other", LockMode::Write).await;
            let (wanted, _interest) = request("order", to, false);
            let warm = enter(&provider, "order", from).await;
            let warm = provider.pass_on(&warm, &wanted).await.expect("free");
            provider.release(&warm).await.unwrap();
            let grant = enter(&provider, "order", from).await;
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let error = provider.pass_on(&grant, &wanted).await.map(drop);
            let error = error.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            proxy.heal();
            let free = enter(&elsewhere, "order", LockMode::Write).await;
            elsewhere.release(&free).await.unwrap();
            provider.release(&other).await.expect("it was not lost");
            server.until_free(BOUND).await;
        }
    });
}

#[test]
fn a_session_that_ends_is_a_loss_at_once() {
    with_server(|server| async move {
        for mode in modes() {
            let provider = server.provider().await;
            let grant = enter(&provider, "order", mode).await;
            let began = Instant::now();
            assert!(server.terminate().await > 0);
            eventually("it is lost", BOUND, || async {
                let renewed = provider.renew(&grant).await;
                renewed.is_err_and(|error| error.kind() == LockErrorKind::Lost)
            })
            .await;
            assert!(began.elapsed() < Duration::from_secs(1));
            let error = provider.release(&grant).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
            let again = enter(&provider, "order", mode).await;
            provider.release(&again).await.unwrap();
        }
    });
}

/// Whoever waits asks anew when its session ends, be it in a queue or for a notice.
#[test]
fn a_waiter_whose_session_ends_waits_on() {
    with_server(|server| async move {
        for waiting_sessions in [16, 0] {
            for mode in modes() {
                if mode == LockMode::Upgradeable && waiting_sessions == 0 {
                    continue;
                }
                let held_by = format!("{}?application_name=holder", server.process.url());
                let holder = connected(PostgresProvider::builder(held_by)).await;
                let held = enter(&holder, "order", opposite(mode)).await;
                let builder = server.builder().waiting_sessions(waiting_sessions);
                let waiter = connected(builder).await;
                let (waiting, interest) = entering(&waiter, "order", mode);
                eventually("it waits", BOUND, || async { interest.is_contended() }).await;
                for _ in 0..3 {
                    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                               WHERE usename = 'app' AND application_name <> 'holder'";
                    server.raw.batch_execute(sql).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                assert!(!waiting.is_finished(), "{mode:?} {waiting_sessions}");
                holder.release(&held).await.unwrap();
                let grant = entered(waiting).await;
                waiter.release(&grant).await.unwrap();
                server.until_free(BOUND).await;
            }
        }
    });
}

/// Requests are given up at every moment of their way.
#[test]
fn who_gives_up_leaves_nothing() {
    with_server(|server| async move {
        let holder = server.provider().await;
        for waiting_sessions in [16, 0] {
            let builder = server.builder().waiting_sessions(waiting_sessions);
            let waiter = connected(builder).await;
            for mode in modes() {
                let warm = match waiting_sessions {
                    0 if mode == LockMode::Upgradeable => continue,
                    _ => enter(&waiter, "order", mode).await,
                };
                waiter.release(&warm).await.unwrap();
                for round in 0..12_u64 {
                    let held = enter(&holder, "order", opposite(mode)).await;
                    let (waiting, interest) = entering(&waiter, "order", mode);
                    tokio::time::sleep(Duration::from_micros(round * round * 300)).await;
                    let releasing = {
                        let holder = Arc::clone(&holder);
                        tokio::spawn(async move { holder.release(&held).await })
                    };
                    interest.abandon();
                    releasing.await.unwrap().unwrap();
                    let answer = tokio::time::timeout(BOUND, waiting).await;
                    if let Ok(grant) = answer.expect("at once").unwrap() {
                        waiter.release(&grant).await.unwrap();
                    }
                    server.until_free(BOUND).await;
                }
            }
        }
    });
}

/// Waiters' snapshots are not old, whatever they wait for.
#[test]
fn no_waiter_keeps_a_snapshot_for_long() {
    const OLDEST: &str = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - \
                          query_start) * 1000), 0)::int8 FROM pg_stat_activity \
                          WHERE usename = 'app' AND state = 'active'";
    with_server(|server| async move {
        for mode in [LockMode::Read, LockMode::Upgradeable, permits(1, 3)] {
            let holder = server.provider().await;
            let held = enter(&holder, "order", opposite(mode)).await;
            let mut waiting = Vec::new();
            for _ in 0..2 {
                let builder = server.builder().snapshot_age(Duration::from_secs(1));
                waiting.push(entering(&connected(builder).await, "order", mode));
            }
            let (began, mut oldest) = (Instant::now(), 0);
            while began.elapsed() < Duration::from_millis(3_500) {
                oldest = oldest.max(server.count(OLDEST).await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!((500..2_500).contains(&oldest), "{mode:?}: {oldest} ms");
            for (_, interest) in &waiting {
                interest.abandon();
            }
            for (waiting, _) in waiting {
                assert!(waiting.await.unwrap().is_err());
            }
            holder.release(&held).await.unwrap();
            server.until_free(BOUND).await;
        }
    });
}
