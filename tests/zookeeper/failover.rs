//! Three servers, of which one leads.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockErrorKind, ZooKeeperProvider};
use lock_tests::boot_nanos;
use lock_tests::zookeeper::Ensemble;

use crate::common::{BOUND, Place, connected, lock, take, token};
use crate::loss_scenario::LossScenario;

const DEADLINE: Duration = Duration::from_secs(240);
/// The time that an election with a frozen server takes on a loaded machine.
const ELECTION: Duration = Duration::from_secs(90);
const ALL: std::ops::Range<usize> = 0..3;

/// Returns the locks of an ensemble, as a client of this server sees them.
async fn place(ensemble: &Ensemble, server: usize) -> Place {
    let mut place = Place::on(ensemble.servers[server].port()).await;
    place.directory = "/locks".to_owned();
    place
}

async fn provider(
    ensemble: &Ensemble,
    servers: impl IntoIterator<Item = usize>,
    lease: Duration,
) -> Arc<ZooKeeperProvider> {
    let url = format!("zookeeper://{}/locks", ensemble.hosts(servers));
    connected(ZooKeeperProvider::builder(url).lease(lease)).await
}

/// Waits until another server leads than this one. It asks seldom, since the servers have an
/// election to hold.
async fn another_leads(ensemble: &Ensemble, old: usize) {
    let elected = async {
        while tokio::task::block_in_place(|| ensemble.leader_but(Some(old))).is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let elected = tokio::time::timeout(ELECTION, elected).await;
    assert!(elected.is_ok(), "no other one leads:\n{}", ensemble.logs());
}

/// Makes the leader fail while somebody holds a lock and somebody waits for it.
async fn a_lock_outlives(fail: impl FnOnce(&mut Ensemble, usize)) {
    let Some(mut ensemble) = Ensemble::start(3, 10).await else {
        return;
    };
    // Longer than any election.
    let lease = Duration::from_secs(300);
    let (first, second) = (
        provider(&ensemble, ALL, lease).await,
        provider(&ensemble, ALL, lease).await,
    );
    let guard = take(&first, "order").await;
    let waiter = tokio::spawn({
        let lock = lock(&second, "order");
        async move { lock.acquire_for(2 * ELECTION).await.unwrap() }
    });
    let leader = ensemble.leader_but(None).expect("one leads");
    let place = place(&ensemble, (leader + 1) % 3).await;
    place.until_children("order", 2).await;

    fail(&mut ensemble, leader);
    another_leads(&ensemble, leader).await;
    place.until_children("order", 2).await;
    assert!(!guard.is_lost(), "the session lives on");
    assert!(!waiter.is_finished(), "and nobody else has the lock");
    let before = token(&guard);
    // Another lock is served by another session, if this one is not connected again.
    let other = lock(&first, "other").acquire_for(ELECTION).await.unwrap();
    other.release().await.unwrap();
    // On its own session the release may come later than its caller waits.
    if let Err(error) = guard.release().await {
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
    }
    let guard = waiter.await.unwrap();
    assert!(token(&guard) > before, "tokens grow over an election");
    guard.release().await.unwrap();
    for provider in [&first, &second] {
        let guard = lock(provider, "order").acquire_for(BOUND).await.unwrap();
        guard.release().await.unwrap();
    }
}

#[test]
fn a_lock_outlives_a_killed_leader() {
    lock_tests::run(
        DEADLINE,
        a_lock_outlives(|ensemble, leader| {
            ensemble.servers[leader].kill();
        }),
    );
}

#[test]
fn a_lock_outlives_a_frozen_leader() {
    lock_tests::run(
        DEADLINE,
        a_lock_outlives(|ensemble, leader| {
            ensemble.servers[leader].process().freeze();
        }),
    );
}

/// A leader that is cut off from the others goes on answering its clients' pings and reads. The
/// others have a new leader, which gives the lock away in time.
#[test]
fn a_holder_at_a_leader_that_is_cut_off_is_lost_in_time() {
    lock_tests::run(DEADLINE, async {
        // It believes to lead for longer than an election takes.
        let Some(ensemble) = Ensemble::start(3, 500).await else {
            return;
        };
        let lease = Duration::from_secs(4);
        let leader = ensemble.leader_but(None).expect("one leads");
        let holder = provider(&ensemble, [leader], lease).await;
        let place = place(&ensemble, (leader + 1) % 3).await;
        let scenario = LossScenario::begin(&place, holder).await;
        let start = boot_nanos();
        ensemble.cut_off(leader);
        another_leads(&ensemble, leader).await;
        assert!(ensemble.servers[leader].leads(), "two believe to lead");
        let scenario = scenario.lost_within(lease, start).await;
        assert!(ensemble.servers[leader].leads(), "it still believes so");
        scenario.end().await;
    });
}
