//! Every way to lose a lock. Its body is dropped before anybody else gets the lock, and a write
//! that comes late is refused. An overlap checker and a fenced register judge.

use std::path::Path;
use std::time::{Duration, Instant};

use lock_tests::frozen::outlived;
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, Probe, ZooKeeperServer, boot_nanos, eventually};

use crate::common::{BOUND, DEADLINE, LONG, Place, connected, silence, take, token, with_server};
use crate::loss_scenario::LossScenario;
use crate::session_takeover::close_session;

const LEASE: Duration = Duration::from_secs(4);
const PROBE: &str = env!("CARGO_BIN_EXE_lock-probe");

/// Makes the network fail for good while a body holds the lock.
fn the_network_fails(fault: impl FnOnce(&FaultProxy) + Send + 'static) {
    with_server(|place| async move {
        let (proxy, holder) = place.behind_proxy(|builder| builder.lease(LEASE)).await;
        let scenario = LossScenario::begin(&place, holder).await;
        let start = boot_nanos();
        fault(&proxy);
        let scenario = scenario.lost_within(LEASE, start).await;
        let counts = proxy.counts();
        let broken = counts.broken.load(std::sync::atomic::Ordering::Relaxed);
        assert!(broken + proxy.swallowed() > 0, "the network failed");
        scenario.end().await;
    });
}

#[test]
fn a_cut_connection() {
    the_network_fails(|proxy| {
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
    });
}

#[test]
fn a_connection_cut_towards_the_server() {
    the_network_fails(|proxy| {
        proxy.set(|fault| {
            fault.to_server = Flow::Cut;
            fault.refuse = true;
        });
    });
}

#[test]
fn a_connection_cut_towards_the_client() {
    the_network_fails(|proxy| {
        proxy.set(|fault| {
            fault.to_client = Flow::Cut;
            fault.refuse = true;
        });
    });
}

#[test]
fn a_silent_connection() {
    the_network_fails(silence);
}

/// Only the server's answers are lost. It hears the client's signs of life, and keeps the session.
#[test]
fn a_connection_that_is_silent_towards_the_client() {
    with_server(|place| async move {
        let (proxy, holder) = place.behind_proxy(|builder| builder.lease(LEASE)).await;
        let scenario = LossScenario::begin(&place, holder).await;
        let start = boot_nanos();
        proxy.set(|fault| fault.to_client = Flow::Swallow);
        let scenario = scenario.lost_within(LEASE, start).await;
        assert!(proxy.swallowed() > 0, "bytes vanished");
        proxy.heal();
        scenario.end().await;
    });
}

#[test]
fn a_session_that_another_client_closes() {
    with_server(|place| async move {
        let scenario = LossScenario::begin(&place, place.provider().await).await;
        let (_, session) = scenario.node().await;
        let start = boot_nanos();
        close_session(place.port, session);
        // By evidence: the deadline is far away.
        scenario.lost_within(LONG / 8, start).await.end().await;
    });
}

#[test]
fn a_node_that_another_client_deletes() {
    with_server(|place| async move {
        let scenario = LossScenario::begin(&place, place.provider().await).await;
        let (path, _) = scenario.node().await;
        let start = boot_nanos();
        place.raw.delete(&path, None).await.unwrap();
        scenario.lost_within(LONG / 8, start).await.end().await;
    });
}

/// The server comes back with the session, and ends it only after its whole timeout.
#[test]
fn a_server_that_is_killed_and_started_again() {
    lock_tests::run(DEADLINE, async {
        let Some(mut server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let holder = connected(place.builder().lease(LEASE)).await;
        let scenario = LossScenario::begin(&place, holder).await;
        let start = boot_nanos();
        server.kill();
        let scenario = scenario.lost_within(LEASE, start).await;
        server.start_again();
        scenario.end().await;
    });
}

#[test]
fn a_holder_frozen_for_three_leases() {
    with_server(|place| async move {
        let url = place.url(&place.port.to_string(), LEASE);
        let frozen = Probe::start(Path::new(PROBE), &url, "order");
        let other = place.provider().await;
        let last = outlived(frozen, LEASE, BOUND, || take(&other, "order")).await;
        assert_eq!(place.children("order").await.len(), 1, "nor taken away");
        last.release().await.unwrap();
    });
}

#[test]
fn a_killed_holder_costs_a_lease() {
    with_server(|place| async move {
        let url = place.url(&place.port.to_string(), LEASE);
        let mut killed = Probe::start(Path::new(PROBE), &url, "order");
        let answer = killed.ask("acquire", "acquired", BOUND).await;
        let start = Instant::now();
        killed.kill();
        let guard = take(&place.provider().await, "order").await;
        assert!(start.elapsed() < LEASE + BOUND / 2, "{:?}", start.elapsed());
        assert!(token(&guard) > answer[2].parse().unwrap());
        guard.release().await.unwrap();
        eventually("nothing is left", BOUND, || async {
            !place.exists("order").await
        })
        .await;
    });
}
