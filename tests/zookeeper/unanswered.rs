//! Free locks on an ensemble that freezes, cannot be reached or is slow; and nodes that hold none.

use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::proxy::Flow;
use lock_tests::{ZooKeeperServer, nobody_is_accused, run};
use zookeeper_client::{Acls, CreateMode};

use crate::common::{BOUND, DEADLINE, Place, connected, lock, take, with_server};

/// What a try takes at most here.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn a_frozen_server_accuses_nobody() {
    run(DEADLINE, async {
        let Some(server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let provider = connected(place.builder().connect_timeout(CONNECT_TIMEOUT)).await;
        take(&provider, "before").await.release().await.unwrap();
        server.process().freeze();
        nobody_is_accused("frozen", CONNECT_TIMEOUT, |name| lock(&provider, name)).await;
        server.process().thaw();
        take(&provider, "after").await.release().await.unwrap();
    });
}

#[test]
fn an_ensemble_behind_a_bad_network_accuses_nobody() {
    with_server(|place| async move {
        let (proxy, provider) = place
            .behind_proxy(|builder| builder.connect_timeout(CONNECT_TIMEOUT))
            .await;
        let ask = async |what| {
            nobody_is_accused(what, CONNECT_TIMEOUT, |name| lock(&provider, name)).await;
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

/// A node that no lock has is refused, and does not count as a holder for ever.
#[test]
fn a_node_that_is_no_lock_is_refused_at_once() {
    with_server(|place| async move {
        let acls = Acls::anyone_all();
        let persistent = CreateMode::Persistent.with_acls(acls);
        for path in [place.directory.clone(), place.node("order")] {
            place.raw.create(&path, b"", &persistent).await.unwrap();
        }
        let foreign = place.path("order", "lock-0000000000");
        place.raw.create(&foreign, b"", &persistent).await.unwrap();
        // Names count on from there.
        let provider = place.provider().await;
        for timeout in [Duration::ZERO, BOUND] {
            let start = Instant::now();
            let error = lock(&provider, "order")
                .acquire_for(timeout)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
            assert!(error.to_string().contains(&foreign), "{error}");
            assert!(start.elapsed() < BOUND / 2, "at once");
        }
        assert_eq!(place.children("order").await.len(), 1, "nothing is left");
        place.raw.delete(&foreign, None).await.unwrap();
        take(&provider, "order").await.release().await.unwrap();
    });
}
