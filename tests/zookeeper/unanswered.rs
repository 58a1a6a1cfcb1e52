//! Free locks on an ensemble that freezes, cannot be reached or is slow, and nodes that hold no
//! lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{LockError, LockErrorKind, LockProvider, distributed_lock};
use lock_tests::proxy::Flow;
use lock_tests::{ZooKeeperServer, nobody_is_accused, nobody_is_accused_under_load, run};
use zookeeper_client::{Acls, CreateMode};

use crate::common::{BOUND, DEADLINE, Place, connected, lock, take, with_server};

/// The time that a try takes at most here. A waiter puts up with more.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The time that making a session takes at most here.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

#[distributed_lock(name = "skips", provider = locks, timeout = "300ms", on_unavailable = "skip")]
async fn skips(locks: &Arc<dyn LockProvider>) -> Result<Option<()>, LockError> {
    Ok(Some(()))
}

#[test]
fn a_frozen_server_accuses_nobody() {
    run(DEADLINE, async {
        let Some(server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let provider = connected(place.builder().response_timeout(RESPONSE_TIMEOUT)).await;
        take(&provider, "before").await.release().await.unwrap();
        server.process().freeze();
        nobody_is_accused("frozen", RESPONSE_TIMEOUT, |name| lock(&provider, name)).await;
        let locks: Arc<dyn LockProvider> = provider.clone();
        let error = skips(&locks).await.expect_err("nothing to skip for");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        server.process().thaw();
        take(&provider, "after").await.release().await.unwrap();
    });
}

/// Whoever releases a lock is kept no longer than whoever tries one, and the lock is released when
/// the server goes on.
#[test]
fn a_release_waits_for_one_answer_at_most() {
    run(DEADLINE, async {
        let Some(server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let provider = connected(place.builder().response_timeout(RESPONSE_TIMEOUT)).await;
        let guard = take(&provider, "order").await;
        server.process().freeze();
        let start = Instant::now();
        let error = guard.release().await.unwrap_err();
        let took = start.elapsed();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        let expected = RESPONSE_TIMEOUT..RESPONSE_TIMEOUT * 3 / 2;
        assert!(expected.contains(&took), "{took:?}");
        server.process().thaw();
        place.until_gone("order").await;
    });
}

#[test]
fn an_ensemble_behind_a_bad_network_accuses_nobody() {
    with_server(|place| async move {
        let (proxy, provider) = place
            .behind_proxy(|builder| builder.response_timeout(RESPONSE_TIMEOUT))
            .await;
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
fn a_held_lock_is_known_to_be_held_within_a_short_timeout() {
    with_server(|place| async move {
        let (holder, provider) = (place.provider().await, place.provider().await);
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
        let taken = lock(&provider, "order").try_acquire().await.unwrap();
        assert!(taken.is_none(), "held elsewhere");
        place.until_children("order", 1).await;
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

/// A client before us has a node that we may not read.
#[test]
fn a_node_that_may_not_be_read_is_waited_for() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let theirs = place.queue("order", "lock-", b"theirs").await;
        let nobody = [zookeeper_client::Acl::new(
            zookeeper_client::Permission::ADMIN,
            zookeeper_client::AuthId::anyone(),
        )];
        place.raw.set_acl(&theirs, &nobody, None).await.unwrap();
        assert!(
            lock(&provider, "order")
                .try_acquire()
                .await
                .unwrap()
                .is_none()
        );
        let waiting = crate::common::waiting(&provider, "order");
        place.until_children("order", 2).await;
        place.raw.delete(&theirs, None).await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
    });
}

#[test]
fn a_limit_of_connections_is_named() {
    run(DEADLINE, async {
        let Some(server) = ZooKeeperServer::start_with_most_connections(2) else {
            return;
        };
        let place = Place::on(server.port()).await;
        let _first = place.provider().await;
        let refused = place
            .builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .connect()
            .await;
        let error = refused.expect_err("there are two connections");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("maxClientCnxns"), "{error}");
    });
}

/// The server is asked for far more than it can do in that time. Nobody is told of another holder,
/// and some are served.
#[test]
fn many_free_names_are_never_held_elsewhere() {
    run(DEADLINE, async {
        // Its load would be the others'.
        let Some(server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let provider = place.provider().await;
        take(&provider, "before").await.release().await.unwrap();
        nobody_is_accused_under_load(|name| lock(&provider, name)).await;
        // What was given up is taken back, and then everything is as before.
        tokio::time::timeout(BOUND, take(&provider, "after"))
            .await
            .expect("it recovers")
            .release()
            .await
            .unwrap();
    });
}
