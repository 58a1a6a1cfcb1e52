//! Free locks on a server that freezes, cannot be reached, is slow, refuses or has too much to do.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockError, LockErrorKind, LockMode, LockProvider, distributed_lock};
use lock_tests::any_lock::permits;
use lock_tests::proxy::Flow;
use lock_tests::{AnyLock, nobody_is_accused, nobody_is_accused_under_load};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{BOUND, connected, enter, lock, take, through, with_server};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

#[distributed_lock(name = "skips", provider = locks, timeout = "300ms", on_unavailable = "skip")]
async fn skips(locks: &Arc<dyn LockProvider>) -> Result<Option<()>, LockError> {
    Ok(Some(()))
}

#[test]
fn a_frozen_server_accuses_nobody() {
    with_server(|server| async move {
        let provider = server.provider().await;
        take(&provider, "before").await.release().await.unwrap();
        server.process.freeze();
        nobody_is_accused("frozen", RESPONSE_TIMEOUT, |name| lock(&provider, name)).await;
        let locks: Arc<dyn LockProvider> = provider.clone();
        let error = skips(&locks).await.expect_err("nothing to skip for");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        server.process.thaw();
        take(&provider, "after").await.release().await.unwrap();
    });
}

#[test]
fn a_server_behind_a_bad_network_accuses_nobody() {
    with_server(|server| async move {
        let proxy = lock_tests::FaultProxy::start(server.process.port()).await;
        let provider = connected(through(&proxy)).await;
        let ask = async |what| {
            nobody_is_accused(what, RESPONSE_TIMEOUT, |name| lock(&provider, name)).await;
        };
        let slow = Flow::Delay(Duration::from_secs(3));
        proxy.set(|fault| fault.to_client = slow);
        ask("slow").await;
        proxy.heal();
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
        ask("out of reach").await;
        // Connections are taken, and nothing is said on them.
        proxy.set(|fault| {
            fault.refuse = false;
            fault.to_client = Flow::Hold;
        });
        proxy.reset();
        ask("connecting").await;
        proxy.heal();
        take(&provider, "after").await.release().await.unwrap();
    });
}

#[test]
fn a_server_that_refuses_accuses_nobody() {
    with_server(|server| async move {
        let provider = server.provider().await;
        server.allow_sessions(0).await;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
        server.raw.execute(sql, &[]).await.unwrap();
        nobody_is_accused("refusing", RESPONSE_TIMEOUT, |name| lock(&provider, name)).await;
        server.allow_sessions(-1).await;
        take(&provider, "after").await.release().await.unwrap();
    });
}

#[test]
fn a_server_with_too_much_to_do_accuses_nobody() {
    with_server(|server| async move {
        let provider = server.provider().await;
        nobody_is_accused_under_load(|name| lock(&provider, name)).await;
        server.until_free(BOUND).await;
    });
}

#[test]
fn a_held_lock_is_known_to_be_held_within_a_short_timeout() {
    with_server(|server| async move {
        let (holder, provider) = (server.provider().await, server.provider().await);
        let _guard = take(&holder, "order").await;
        take(&provider, "before").await.release().await.unwrap();
        for _ in 0..3 {
            let timeout = Duration::from_millis(100);
            let error = lock(&provider, "order")
                .acquire_for(timeout)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
        }
        let error = lock(&provider, "order")
            .acquire_for(Duration::ZERO)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        server.until_waiting(0).await;
    });
}

/// What this process has given up, and the server still has, is no holder for those who wait.
#[test]
fn what_was_given_up_lets_nobody_time_out() {
    let write = LockMode::Write;
    let cases = [
        (LockMode::Exclusive, LockMode::Exclusive),
        (write, write),
        (write, LockMode::Read),
        (LockMode::Read, write),
        (LockMode::Upgradeable, LockMode::Upgradeable),
        (permits(1, 1), permits(1, 1)),
        (permits(2, 3), permits(2, 3)),
    ];
    with_server(move |server| async move {
        for (had, wanted) in cases {
            let builder = server
                .builder()
                .response_timeout(Duration::from_millis(500));
            let provider = connected(builder).await;
            let held = enter(&provider, "order", had).await;
            let holders =
                "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND granted";
            let rows = server.raw.query(holders, &[]).await.unwrap();
            let stopped: Vec<_> = rows
                .iter()
                .map(|row| Pid::from_raw(row.get(0)).unwrap())
                .collect();
            assert!(!stopped.is_empty());
            for pid in &stopped {
                kill_process(*pid, Signal::STOP).unwrap();
            }
            assert!(provider.release(&held).await.is_err(), "nobody answers");
            let waiting = AnyLock::on(wanted, provider.clone(), "order");
            let mut seen = Vec::new();
            for timeout in [100, 700, 2_500] {
                let timeout = Duration::from_millis(timeout);
                seen.push(waiting.acquire_for(timeout).await.map(drop));
            }
            for pid in stopped {
                kill_process(pid, Signal::CONT).unwrap();
            }
            for late in seen {
                let late = late.unwrap_err();
                let kind = late.kind();
                assert_eq!(
                    kind,
                    LockErrorKind::ProviderUnavailable,
                    "{had:?}, {wanted:?}: {late}"
                );
            }
            let free = waiting.acquire_for(BOUND).await.expect("nobody has it");
            free.release().await.unwrap();
            server.until_free(BOUND).await;
        }
    });
}
