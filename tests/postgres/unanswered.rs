//! Free locks on a server that freezes, cannot be reached, is slow, refuses or has too much to do.

use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::nobody_is_accused;
use lock_tests::proxy::Flow;

use crate::common::{connected, lock, take, through, with_server};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn a_frozen_server_accuses_nobody() {
    with_server(|server| async move {
        let provider = server.provider().await;
        take(&provider, "before").await.release().await.unwrap();
        server.process.freeze();
        nobody_is_accused("frozen", RESPONSE_TIMEOUT, |name| lock(&provider, name)).await;
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
