//! Servers that are out of reach for a while, and clients that put up with it.

use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::eventually;
use lock_tests::proxy::Flow;

use crate::common::{BOUND, connected, lock, with_server};
use crate::network::{builder_behind, count, proxy_of};

const CONNECTING: Duration = Duration::from_millis(100);

/// The time that an outage may last and the time that connecting may take are two settings.
#[test]
fn a_waiter_bears_an_outage_for_the_failover_timeout() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy).connect_timeout(CONNECTING);
        let patient = connected(builder.failover_timeout(BOUND)).await;
        let builder = builder_behind(&proxy).connect_timeout(CONNECTING);
        let hasty = connected(builder.failover_timeout(CONNECTING * 5)).await;
        server.raw.ask::<String>("SET patient x PX 60000").await;
        server.raw.ask::<String>("SET hasty x PX 60000").await;
        let waiting = |provider: &_, name| {
            let lock = lock(provider, name);
            tokio::spawn(async move { lock.acquire().await })
        };
        let (patient, hasty) = (waiting(&patient, "patient"), waiting(&hasty, "hasty"));
        server.raw.until_waiting("patient", 1).await;
        server.raw.until_waiting("hasty", 1).await;
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
        let error = hasty.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(count(&proxy.counts().refused) > 1);
        assert!(!patient.is_finished());
        server.raw.ask::<u8>("DEL patient").await;
        proxy.heal();
        patient.await.unwrap().unwrap().release().await.unwrap();
    });
}

/// The loss of a connection is known before an attempt to make a new one has failed.
#[test]
fn a_timeout_in_the_first_moments_of_an_outage_is_not_contention() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let provider = connected(builder_behind(&proxy)).await;
        server.raw.ask::<String>("SET order x PX 60000").await;
        let began = Instant::now();
        let waiter = lock(&provider, "order");
        let waiting = tokio::spawn(async move { waiter.acquire_for(BOUND / 5).await });
        server.raw.until_waiting("order", 1).await;
        // New connections are taken, and nothing comes through.
        let connections = count(&proxy.counts().connections);
        proxy.set(|fault| fault.to_client = Flow::Hold);
        proxy.reset();
        eventually("it connects", BOUND, || async {
            count(&proxy.counts().connections) > connections
        })
        .await;
        let error = waiting.await.unwrap().unwrap_err();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "no attempt has failed"
        );
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
    });
}
