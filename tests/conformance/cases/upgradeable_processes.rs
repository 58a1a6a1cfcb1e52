//! Readers of other processes that may become the writer, and what their ends leave.

use lock_runtime::{DistributedRwLock, LockMode};
use lock_tests::any_lock::ModeWord;
use lock_tests::{Probe, eventually};

use super::Shared;
use crate::fixture::Fixture;

async fn reader(fixture: &Fixture) -> Probe {
    let mut probe = fixture.probe("lock");
    probe.tell(&format!("as {}", ModeWord(LockMode::Upgradeable)));
    probe.ask("acquire", "acquired", fixture.bound()).await;
    probe
}

/// The right to become the writer ends with the process, and so does its read.
pub(crate) async fn a_killed_reader_that_may_upgrade_costs_a_lease(fixture: Shared) {
    let lock = fixture.rw("lock");
    let mut killed = reader(&fixture).await;
    assert!(lock.try_upgradeable_read().await.unwrap().is_none());
    let plain = lock.read_for(fixture.bound()).await.expect("it reads too");
    plain.release().await.unwrap();
    killed.kill();
    let may = lock.upgradeable_read_for(fixture.after_a_death()).await;
    let writer = may.expect("the right is free").upgrade();
    let writer = tokio::time::timeout(fixture.after_a_death(), writer).await;
    let writer = writer.expect("nobody else reads").unwrap();
    writer.release().await.unwrap();
}

/// It holds new readers back while it waits, and for a lease at most after its end.
pub(crate) async fn a_killed_upgrade_lets_readers_in(fixture: Shared) {
    let lock = fixture.rw("lock");
    let plain = lock.read().await.unwrap();
    let mut killed = reader(&fixture).await;
    killed.tell("upgrade");
    let elsewhere = DistributedRwLock::on(fixture.elsewhere().await, "lock");
    eventually("readers are held back", fixture.bound(), async || {
        elsewhere.try_read().await.unwrap().is_none()
    })
    .await;
    killed.kill();
    let read = elsewhere.read_for(fixture.after_a_death()).await;
    read.expect("no upgrade waits").release().await.unwrap();
    assert!(!plain.is_lost());
    plain.release().await.unwrap();
    let writer = elsewhere.write_for(fixture.after_a_death()).await;
    writer.expect("nobody reads").release().await.unwrap();
}

pub(crate) async fn a_killed_writer_that_was_upgraded_costs_a_lease(fixture: Shared) {
    let lock = fixture.rw("lock");
    let mut killed = reader(&fixture).await;
    killed.ask("upgrade", "acquired", fixture.bound()).await;
    assert!(lock.try_read().await.unwrap().is_none(), "somebody writes");
    killed.kill();
    let may = lock.upgradeable_read_for(fixture.after_a_death()).await;
    let may = may.expect("nobody writes");
    lock.read().await.unwrap().release().await.unwrap();
    may.release().await.unwrap();
}

/// Both as a reader, and as the writer that it has become.
pub(crate) async fn a_frozen_one_that_may_upgrade_is_lost(fixture: Shared) {
    let lock = fixture.rw("lock");
    for upgrades in [false, true] {
        let mut other = reader(&fixture).await;
        if upgrades {
            other.ask("upgrade", "acquired", fixture.bound()).await;
        }
        other.ask("is-lost", "valid", fixture.bound()).await;
        other.freeze();
        let writer = lock.write_for(fixture.after_a_death()).await;
        let writer = writer.expect("free after its lease");
        other.thaw();
        other.ask("is-lost", "lost", fixture.bound()).await;
        assert!(!writer.is_lost());
        writer.release().await.unwrap();
    }
}
