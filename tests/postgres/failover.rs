//! A name that leads to another server from one connection to the next. Open connections stay: only
//! the name changes, as with DNS, a virtual address or a proxy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, PostgresProvider};
use lock_tests::{FaultProxy, PostgresServer, eventually};

use crate::common::{BOUND, Server, connected, lock, raw, take, through, with_server};

const LEASE: Duration = Duration::from_secs(2);
/// The time after the change of the name at which nothing is held or granted on the old server any
/// more.
const OVERLAP: Duration = LEASE.saturating_mul(3).checked_div(2).unwrap();

/// A primary, a standby of it, and a name that leads to the primary.
struct Pair {
    old: Server,
    new: PostgresServer,
    name: FaultProxy,
}

impl Pair {
    async fn of(old: Server) -> Self {
        let new = old.process.start_standby();
        let name = FaultProxy::start(old.process.port()).await;
        Self { old, new, name }
    }

    async fn process(&self) -> Arc<PostgresProvider> {
        connected(through(&self.name).lease(LEASE)).await
    }

    fn fail_over(&self) -> Instant {
        self.new.promote();
        self.name.lead_to(self.new.port());
        Instant::now()
    }
}

/// The old primary lives and answers clients that are connected to it.
#[test]
fn a_replaced_primary_holds_and_grants_nothing_for_long() {
    with_server(|server| async move {
        let pair = Pair::of(server).await;
        let (first, second, third) = (
            pair.process().await,
            pair.process().await,
            pair.process().await,
        );
        let held = take(&first, "held").await;
        let waits = lock(&second, "held");
        let mut waiting = tokio::spawn(async move { waits.acquire().await });
        pair.old.until_waiting(1).await;
        take(&third, "free").await.release().await.unwrap();
        let since = pair.fail_over();
        let other = pair.process().await;

        tokio::time::timeout(OVERLAP, held.lost())
            .await
            .expect("the holder is told");
        assert_eq!(
            held.release().await.unwrap_err().kind(),
            LockErrorKind::Lost
        );
        let taken = take(&other, "held").await;
        // Those of the old server are gone, and whoever takes a lock does so on the new one.
        tokio::time::sleep(OVERLAP.saturating_sub(since.elapsed())).await;
        assert_eq!(pair.old.sessions().await, 0);
        let guard = take(&third, "free").await;
        assert!(lock(&other, "free").try_acquire().await.unwrap().is_none());
        guard.release().await.unwrap();
        // It may have been granted on the old one, when the first holder had just left that.
        match tokio::time::timeout(Duration::ZERO, &mut waiting).await {
            Ok(granted) => {
                assert!(granted.unwrap().unwrap().is_lost());
                taken.release().await.unwrap();
            }
            Err(_) => {
                taken.release().await.unwrap();
                let granted = waiting.await.unwrap().unwrap();
                assert!(lock(&other, "held").try_acquire().await.unwrap().is_none());
                granted.release().await.unwrap();
            }
        }
    });
}

/// The old primary is gone when its standby takes over.
#[test]
fn a_stopped_primary_is_left_at_once() {
    with_server(|server| async move {
        let mut pair = Pair::of(server).await;
        let (first, second) = (pair.process().await, pair.process().await);
        let held = take(&first, "held").await;
        let waits = lock(&second, "held");
        let waiting = tokio::spawn(async move { waits.acquire().await });
        pair.old.until_waiting(1).await;
        pair.old.process.kill();
        tokio::time::timeout(OVERLAP, held.lost())
            .await
            .expect("the holder is told");
        pair.fail_over();
        match waiting.await.unwrap() {
            Ok(granted) => granted.release().await.unwrap(),
            // It bears an outage for a while only.
            Err(error) => assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}"),
        }
        take(&first, "held").await.release().await.unwrap();
    });
}

/// The old primary answers nobody, and clients that were connected to it do not hear of the change.
#[test]
fn a_frozen_primary_holds_nothing_after_its_standby_was_promoted() {
    with_server(|server| async move {
        let pair = Pair::of(server).await;
        let holder = pair.process().await;
        let held = take(&holder, "held").await;
        pair.old.process.freeze();
        let since = pair.fail_over();
        let other = pair.process().await;
        tokio::time::timeout(OVERLAP, held.lost())
            .await
            .expect("the holder is told");
        take(&other, "held").await.release().await.unwrap();
        take(&holder, "held").await.release().await.unwrap();
        assert!(since.elapsed() < BOUND);
        pair.old.process.thaw();
    });
}

/// The sessions of one process are on two servers: a process's number on one means nothing on the
/// other.
#[test]
fn a_waiter_is_not_looked_for_on_another_server() {
    with_server(|server| async move {
        let pair = Pair::of(server).await;
        let process = connected(through(&pair.name).lease(LEASE)).await;
        let holder = pair.process().await;
        let held = take(&holder, "held").await;
        let waits = lock(&process, "held");
        let waiting = tokio::spawn(async move { waits.acquire().await });
        pair.old.until_waiting(1).await;
        pair.fail_over();
        tokio::time::timeout(OVERLAP, held.lost())
            .await
            .expect("the holder is told");
        // Nothing was held on the new one.
        let mut granted = waiting.await.unwrap().unwrap();
        // A server learns of a connection's end a moment later.
        eventually("the old one is left", Duration::from_secs(1), || async {
            pair.old.sessions().await == 0
        })
        .await;
        if granted.is_lost() {
            // The holder left the old one before the waiter knew, and so the waiter got its lock.
            granted = take(&process, "held").await;
        }
        assert!(lock(&holder, "held").try_acquire().await.unwrap().is_none());
        granted.release().await.unwrap();
    });
}

/// The name goes over to a cluster that has nothing to do with the one before.
#[test]
fn a_name_that_leads_to_another_cluster_is_followed() {
    with_server(|server| async move {
        let Some(other) = lock_tests::postgres::PostgresOptions::default().start() else {
            return;
        };
        let name = FaultProxy::start(server.process.port()).await;
        let process = connected(through(&name).lease(LEASE)).await;
        let held = take(&process, "held").await;
        name.lead_to(other.port());
        tokio::time::timeout(OVERLAP, held.lost())
            .await
            .expect("the holder is told");
        take(&process, "held").await.release().await.unwrap();
        let seen = raw(&other).await;
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        let count: i64 = seen.query_one(sessions, &[]).await.unwrap().get(0);
        assert!(count > 0, "it has gone over");
    });
}

/// A machine dies without a word and comes back; connections to it are half-open.
#[test]
fn a_server_that_comes_back_is_known_to_have_lost_its_locks() {
    with_server(|mut server| async move {
        let name = FaultProxy::start(server.process.port()).await;
        let lease = Duration::from_secs(12);
        let process = connected(through(&name).lease(lease)).await;
        let held = take(&process, "held").await;
        // What is connected hears no more; what connects later does.
        name.strand();
        server.process.kill();
        server.process.start_again();
        let other = connected(server.builder().lease(lease)).await;
        take(&other, "held").await.release().await.unwrap();
        // A new lock needs a new session, which shows the other start.
        let taken = tokio::time::timeout(Duration::from_secs(5), take(&process, "other")).await;
        drop(taken.expect("a new session works"));
        eventually("it is lost", Duration::from_secs(1), || async {
            held.is_lost()
        })
        .await;
    });
}

/// The name goes back to a server that was replaced.
#[test]
fn a_server_that_was_replaced_is_not_gone_back_to() {
    with_server(|server| async move {
        let pair = Pair::of(server).await;
        let process = pair.process().await;
        let held = take(&process, "held").await;
        pair.fail_over();
        tokio::time::timeout(OVERLAP, held.lost())
            .await
            .expect("the holder is told");
        let held = take(&process, "held").await;
        pair.name.lead_to(pair.old.process.port());
        pair.name.reset();
        tokio::time::timeout(BOUND, held.lost())
            .await
            .expect("the connection was reset");
        let error = lock(&process, "other").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
        assert!(error.to_string().contains("the primary once"), "{error}");
        pair.name.lead_to(pair.new.port());
        take(&process, "held").await.release().await.unwrap();
    });
}
