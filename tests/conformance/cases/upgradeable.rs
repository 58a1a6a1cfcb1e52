//! Readers of whom one may become the writer.

use std::time::Duration;

use lock_runtime::LockMode;
use lock_runtime::{DistributedRwLock, LockErrorKind, RwLockUpgradeableReadGuard, UpgradeError};
use lock_tests::{Rng, Window, boot_nanos, eventually, poll_once};
use tokio::task::JoinSet;

use super::Shared;
use super::modes::Judged;

const SHORT: Duration = Duration::from_millis(50);
/// Long enough for an answer that somebody has the lock, on a loaded machine.
const A_WHILE: Duration = Duration::from_millis(400);
/// The polls that an upgrade is given: more than any here needs when nothing is in its way.
const POLLS: usize = 30;

/// Returns the reader, who is still one.
fn reader(failed: UpgradeError, kind: LockErrorKind) -> RwLockUpgradeableReadGuard {
    assert_eq!(failed.kind(), kind, "{failed}");
    let reader = failed.into_guard().expect("it is still a reader");
    assert!(!reader.is_lost());
    reader
}

/// Waits until a process sees that somebody waits before its readers.
async fn holds_back(lock: &DistributedRwLock, bound: Duration) {
    eventually("readers are held back", bound, async || {
        lock.try_read().await.unwrap().is_none()
    })
    .await;
}

pub(crate) async fn it_reads_beside_readers_and_upgrades_alone(fixture: Shared) {
    let tokens = fixture.provider().capabilities().fencing_tokens;
    let (here, there) = fixture.two_rw("The Name").await;
    for (lock, other) in [(&here, &there), (&there, &here)] {
        let plain = other.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        assert_eq!(may.name().as_str(), "The Name");
        assert_eq!(may.fencing_token().is_some(), tokens);
        for reads in [&here, &there] {
            let second = reads.try_read().await.unwrap().expect("nobody writes");
            second.release().await.unwrap();
            assert!(reads.try_write().await.unwrap().is_none(), "two read");
        }
        plain.release().await.unwrap();
        let (read, writes) = (may.fencing_token(), may.upgrade().await.unwrap());
        assert_eq!(writes.name().as_str(), "The Name");
        assert!(!tokens || read < writes.fencing_token(), "{read:?}");
        for waits in [&here, &there] {
            assert!(waits.try_read().await.unwrap().is_none(), "it writes");
            assert!(waits.try_write().await.unwrap().is_none(), "it writes");
        }
        writes.release().await.unwrap();
        let may = other.upgradeable_read_for(fixture.bound()).await.unwrap();
        may.release().await.unwrap();
    }
}

pub(crate) async fn there_is_one_at_a_time(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    for (lock, other) in [(&here, &here), (&here, &there), (&there, &here)] {
        let may = lock.upgradeable_read_for(fixture.bound()).await.unwrap();
        let error = other.upgradeable_read_for(A_WHILE).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
        assert!(other.try_upgradeable_read().await.unwrap().is_none());
        let mut second = Box::pin(other.upgradeable_read());
        assert!(poll_once(second.as_mut()).await.is_none(), "it waits");
        let early = tokio::time::timeout(SHORT, &mut second).await;
        assert!(early.is_err(), "there is one");
        may.release().await.unwrap();
        let second = tokio::time::timeout(fixture.bound(), second).await;
        second
            .expect("its turn has come")
            .unwrap()
            .release()
            .await
            .unwrap();
    }
}

pub(crate) async fn an_upgrade_waits_for_readers_and_goes_before_a_writer(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    for (lock, reads, writes) in [
        (&here, &here, &here),
        (&here, &there, &there),
        (&there, &here, &there),
    ] {
        let plain = reads.read_for(fixture.bound()).await.unwrap();
        let may = lock.upgradeable_read_for(fixture.bound()).await.unwrap();
        let mut writing = Box::pin(writes.write());
        assert!(poll_once(writing.as_mut()).await.is_none(), "two read");
        holds_back(writes, fixture.bound()).await;
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none(), "one reads");
        let early = tokio::time::timeout(SHORT, &mut upgrade).await;
        assert!(early.is_err(), "one reads");
        let mut late = Box::pin(reads.read());
        assert!(poll_once(late.as_mut()).await.is_none(), "it comes later");
        plain.release().await.unwrap();
        let upgraded = tokio::time::timeout(fixture.bound(), upgrade).await;
        let upgraded = upgraded.expect("nobody else reads").unwrap();
        let early = tokio::time::timeout(SHORT, &mut writing).await;
        assert!(early.is_err(), "somebody writes");
        assert!(poll_once(late.as_mut()).await.is_none(), "somebody writes");
        upgraded.release().await.unwrap();
        let written = tokio::time::timeout(fixture.bound(), writing).await;
        written.expect("its turn").unwrap().release().await.unwrap();
        let late = tokio::time::timeout(fixture.bound(), late).await;
        late.expect("its turn").unwrap().release().await.unwrap();
    }
}

/// In whichever process they are.
pub(crate) async fn readers_elsewhere_wait_for_an_upgrade(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    for reads in [&here, &there] {
        let plain = reads.read_for(fixture.bound()).await.unwrap();
        let may = here.upgradeable_read_for(fixture.bound()).await.unwrap();
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none(), "one reads");
        for lock in [&here, &there] {
            holds_back(lock, fixture.bound()).await;
            let error = lock.read_for(A_WHILE).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
        }
        plain.release().await.unwrap();
        let upgraded = tokio::time::timeout(fixture.bound(), upgrade).await;
        let upgraded = upgraded.expect("nobody else reads").unwrap();
        upgraded.release().await.unwrap();
    }
}

pub(crate) async fn who_fails_to_upgrade_is_still_a_reader(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    for reads in [&here, &there] {
        let plain = reads.read_for(fixture.bound()).await.unwrap();
        let may = here.upgradeable_read_for(fixture.bound()).await.unwrap();
        let failed = may.upgrade_for(Duration::ZERO).await.unwrap_err();
        let may = reader(failed, LockErrorKind::Contended);
        let failed = may.upgrade_for(A_WHILE).await.unwrap_err();
        let may = reader(failed, LockErrorKind::TimedOut);
        // Nobody is held back any more.
        for lock in [&here, &there] {
            let second = lock.read_for(fixture.bound()).await;
            second.expect("nobody upgrades").release().await.unwrap();
            assert!(lock.try_write().await.unwrap().is_none(), "two read");
            let second = lock.try_upgradeable_read().await.unwrap();
            assert!(second.is_none(), "it still has the right");
        }
        plain.release().await.unwrap();
        let writes = may.upgrade_for(fixture.bound()).await;
        writes.expect("nobody else reads").release().await.unwrap();
        // A release after a failure.
        let plain = reads.read_for(fixture.bound()).await.unwrap();
        let may = here.upgradeable_read_for(fixture.bound()).await.unwrap();
        let failed = may.upgrade_for(SHORT).await.unwrap_err();
        reader(failed, LockErrorKind::TimedOut)
            .release()
            .await
            .unwrap();
        plain.release().await.unwrap();
        let writer = there.write_for(fixture.bound()).await;
        writer.expect("nothing is left").release().await.unwrap();
    }
}

/// Each reads, and then wants to write: the one deadlock that plain readers would have.
pub(crate) async fn two_that_upgrade_do_not_wait_for_each_other(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    let mut tasks = JoinSet::new();
    for lock in [here.clone(), there.clone(), here, there] {
        tasks.spawn(async move {
            for _ in 0..10 {
                let may = lock.upgradeable_read().await.unwrap();
                tokio::task::yield_now().await;
                may.upgrade().await.unwrap().release().await.unwrap();
            }
        });
    }
    let all = tokio::time::timeout(2 * fixture.bound(), tasks.join_all()).await;
    all.expect("each has its turn");
}

pub(crate) async fn upgrades_dropped_at_every_poll(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    for polls in 1..POLLS {
        for reads in [&here, &there] {
            let plain = reads.read_for(fixture.bound()).await.unwrap();
            let may = here.upgradeable_read_for(fixture.bound()).await.unwrap();
            let mut upgrade = Box::pin(may.upgrade());
            for _ in 0..polls {
                assert!(poll_once(upgrade.as_mut()).await.is_none(), "one reads");
                tokio::task::yield_now().await;
            }
            drop(upgrade);
            let second = there.read_for(fixture.bound()).await;
            second.expect("nobody upgrades").release().await.unwrap();
            plain.release().await.unwrap();
        }
        // About when it becomes the writer.
        let plain = here.read_for(fixture.bound()).await.unwrap();
        let may = there.upgradeable_read_for(fixture.bound()).await.unwrap();
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none(), "one reads");
        let releasing = tokio::spawn(plain.release());
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        drop(upgrade);
        releasing.await.unwrap().unwrap();
        let writer = here.write_for(fixture.bound()).await;
        writer.expect("nothing is left").release().await.unwrap();
    }
}

/// Tasks of two providers read, write and upgrade at random, and their windows are judged.
pub(crate) async fn windows_with_upgrades(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    let judged = Judged::default();
    let mut playing = JoinSet::new();
    for task in 0..8_u64 {
        let lock = if task % 2 == 0 {
            here.clone()
        } else {
            there.clone()
        };
        let windows = judged.windows.clone();
        playing.spawn(async move {
            let mut random = Rng::new(task);
            let record = |mode, from, token: Option<lock_runtime::FencingToken>| {
                windows.record(Window {
                    name: "lock".to_owned(),
                    holder: task.to_string(),
                    mode,
                    from,
                    until: boot_nanos(),
                    token: token.map(|token| token.get()),
                });
            };
            for _ in 0..25 {
                let pause = random.millis(0..3);
                match random.below(4) {
                    0 => {
                        let guard = lock.write().await.unwrap();
                        let from = boot_nanos();
                        tokio::time::sleep(pause).await;
                        record(LockMode::Write, from, guard.fencing_token());
                    }
                    1 => {
                        let guard = lock.read().await.unwrap();
                        let from = boot_nanos();
                        tokio::time::sleep(pause).await;
                        record(LockMode::Read, from, guard.fencing_token());
                    }
                    end => {
                        let guard = lock.upgradeable_read().await.unwrap();
                        let from = boot_nanos();
                        tokio::time::sleep(pause).await;
                        record(LockMode::Upgradeable, from, guard.fencing_token());
                        let upgraded = match end {
                            2 => guard.upgrade().await,
                            _ => guard.upgrade_for(pause).await,
                        };
                        match upgraded {
                            Ok(guard) => {
                                let from = boot_nanos();
                                tokio::time::sleep(pause).await;
                                record(LockMode::Write, from, guard.fencing_token());
                            }
                            Err(failed) => drop(failed.into_guard().expect("still a reader")),
                        }
                    }
                }
            }
        });
    }
    playing.join_all().await;
    let seen = judged.windows.check();
    assert!(seen.grants["upgradeable"] > 50, "{seen:?}");
    assert!(seen.grants["write"] > 50, "{seen:?}");
    assert!(seen.changes_of_holder > 20, "{seen:?}");
}

pub(crate) async fn a_loss_ends_an_upgrade(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    let plain = there.read().await.unwrap();
    let may = here.upgradeable_read().await.unwrap();
    let mut upgrade = Box::pin(may.upgrade());
    assert!(poll_once(upgrade.as_mut()).await.is_none(), "one reads");
    holds_back(&there, fixture.bound()).await;
    fixture.lose("lock").await;
    let failed = tokio::time::timeout(fixture.after_a_death(), upgrade).await;
    let failed = failed.expect("the loss is told").unwrap_err();
    assert_eq!(failed.kind(), LockErrorKind::Lost, "{failed}");
    assert!(failed.into_guard().is_none());
    drop(plain);
    let writer = here.write_for(fixture.after_a_death()).await;
    writer.expect("nothing is left").release().await.unwrap();
}
