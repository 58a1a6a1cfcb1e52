//! Any number of readers, or one writer, in the order in which they came.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{DistributedLock, DistributedRwLock, DistributedSemaphore, LockErrorKind};
use lock_tests::{boot_nanos, poll_once};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::Shared;
use super::modes::{Judged, play};
use crate::counted::Counted;

const SHORT: Duration = Duration::from_millis(50);
/// Long enough for an answer that somebody has the lock, on a loaded machine.
const A_WHILE: Duration = Duration::from_millis(400);
/// The polls that an acquisition is given: more than any here needs when nothing is in its way.
const POLLS: usize = 30;

pub(crate) async fn readers_share_and_a_writer_is_alone(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    let mut readers = vec![here.read().await.unwrap(), there.read().await.unwrap()];
    for lock in [&here, &there] {
        readers.push(lock.try_read().await.unwrap().expect("readers share"));
        readers.push(lock.read_for(fixture.bound()).await.unwrap());
        assert!(lock.try_write().await.unwrap().is_none(), "somebody reads");
        let error = lock.write_for(Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        assert_eq!(error.name().map(AsRef::as_ref), Some("lock"));
        let error = lock.write_for(A_WHILE).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
    }
    for reader in readers {
        assert!(!reader.is_lost());
        reader.release().await.unwrap();
    }
    for (writes, other) in [(&here, &there), (&there, &here)] {
        let writer = writes.try_write().await.unwrap().expect("nobody reads");
        for lock in [writes, other] {
            assert!(lock.try_read().await.unwrap().is_none(), "somebody writes");
            assert!(lock.try_write().await.unwrap().is_none(), "somebody writes");
            let error = lock.read_for(A_WHILE).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
        }
        writer.release().await.unwrap();
    }
    // What was refused has left nothing behind that holds anybody back.
    for lock in [&here, &there] {
        lock.try_read()
            .await
            .unwrap()
            .expect("nobody writes")
            .release()
            .await
            .unwrap();
    }
}

pub(crate) async fn guards_know_their_names(fixture: Shared) {
    let lock = fixture.rw("The Name");
    let reader = lock.read().await.unwrap();
    let tokens = fixture.provider().capabilities().fencing_tokens;
    assert_eq!(reader.name().as_str(), "The Name");
    assert_eq!(reader.fencing_token().is_some(), tokens);
    assert!(!reader.is_lost());
    reader.release().await.unwrap();
    let writer = lock.write().await.unwrap();
    assert_eq!(writer.name().as_str(), "The Name");
    assert_eq!(writer.fencing_token().is_some(), tokens);
}

pub(crate) async fn a_writer_enters_after_the_last_of_two_readers(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    for lock in [&here, &there] {
        let one = here.read().await.unwrap();
        let other = there.read().await.unwrap();
        let mut writing = Box::pin(lock.write());
        assert!(poll_once(writing.as_mut()).await.is_none(), "it waits");
        one.release().await.unwrap();
        let early = tokio::time::timeout(SHORT, &mut writing).await;
        assert!(early.is_err(), "somebody still reads");
        other.release().await.unwrap();
        let writer = tokio::time::timeout(fixture.bound(), writing).await;
        writer
            .expect("nobody reads")
            .unwrap()
            .release()
            .await
            .unwrap();
    }
}

/// In this process; elsewhere it takes a moment until the writer is seen.
pub(crate) async fn a_read_is_refused_while_a_writer_waits(fixture: Shared) {
    let lock = fixture.rw("lock");
    for _ in 0..20 {
        let reader = lock.read().await.unwrap();
        let mut writing = Box::pin(lock.write());
        assert!(poll_once(writing.as_mut()).await.is_none(), "it waits");
        assert!(lock.try_read().await.unwrap().is_none(), "a writer waits");
        // One that gives up holds nobody back.
        drop(writing);
        let second = lock.read_for(fixture.bound()).await.unwrap();
        reader.release().await.unwrap();
        second.release().await.unwrap();
    }
}

/// All of them are inside at once, or none gets on.
pub(crate) async fn neighbours_enter_together(fixture: Shared) {
    const READERS: usize = 6;
    let (here, there) = fixture.two_rw("lock").await;
    let writer = here.write().await.unwrap();
    let all_inside = Arc::new(Barrier::new(READERS));
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let lock = if reader % 2 == 0 {
            here.clone()
        } else {
            there.clone()
        };
        let all_inside = all_inside.clone();
        readers.spawn(async move {
            let guard = lock.read().await.unwrap();
            all_inside.wait().await;
            guard.release().await.unwrap();
        });
    }
    tokio::time::sleep(SHORT).await;
    writer.release().await.unwrap();
    let all = tokio::time::timeout(fixture.bound(), readers.join_all()).await;
    all.expect("they enter together");
}

/// While no writer waits, and somebody reads all the time.
pub(crate) async fn readers_of_a_process_share_one_grant(fixture: Shared) {
    let counted = Counted::new(fixture.provider().clone());
    let lock = DistributedRwLock::on(counted.clone(), "lock");
    let anchor = lock.read().await.unwrap();
    let mut readers = JoinSet::new();
    for reader in 0..16 {
        let lock = lock.clone();
        readers.spawn(async move {
            for round in 0..20 {
                let guard = match (reader + round) % 3 {
                    0 => lock.try_read().await.unwrap().expect("nobody writes"),
                    1 => lock.read_for(Duration::from_secs(30)).await.unwrap(),
                    _ => lock.read().await.unwrap(),
                };
                tokio::time::sleep(Duration::from_millis(2)).await;
                guard.release().await.unwrap();
            }
        });
    }
    readers.join_all().await;
    anchor.release().await.unwrap();
    assert!(counted.acquired() <= 1, "{} grants", counted.acquired());
}

/// The grant that readers share ends with the last of them, in whichever order they leave.
pub(crate) async fn who_leaves_keeps_the_others_grant(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut readers = [const { None }; 3];
        for reader in &mut readers {
            *reader = Some(here.read_for(fixture.bound()).await.unwrap());
        }
        for place in order {
            let written = there.try_write().await.unwrap();
            assert!(written.is_none(), "{order:?}: somebody reads");
            let reader = readers[place].take().unwrap();
            assert!(!reader.is_lost());
            match place {
                0 => drop(reader),
                _ => reader.release().await.unwrap(),
            }
        }
        let writer = there.write_for(fixture.bound()).await;
        writer.expect("nobody reads").release().await.unwrap();
    }
}

pub(crate) async fn readers_and_writers_dropped_at_every_poll(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    for polls in 1..POLLS {
        // Behind a reader of this process, of another, and behind a writer.
        let reader = here.read().await.unwrap();
        for lock in [&here, &there] {
            let mut writing = Box::pin(lock.write());
            for _ in 0..polls {
                assert!(poll_once(writing.as_mut()).await.is_none(), "it waits");
                tokio::task::yield_now().await;
            }
            drop(writing);
            let second = here.read_for(fixture.bound()).await;
            second.expect("no writer waits").release().await.unwrap();
        }
        assert!(!reader.is_lost());
        reader.release().await.unwrap();
        let writer = there
            .write_for(fixture.bound())
            .await
            .expect("nobody reads");
        let (mut one, mut other) = (Box::pin(here.read()), Box::pin(there.write()));
        for _ in 0..polls {
            assert!(poll_once(one.as_mut()).await.is_none(), "it waits");
            assert!(poll_once(other.as_mut()).await.is_none(), "it waits");
            tokio::task::yield_now().await;
        }
        drop((one, other));
        writer.release().await.unwrap();
    }
    for lock in [&here, &there] {
        let writer = lock.write_for(fixture.bound()).await;
        writer.expect("nothing is left").release().await.unwrap();
    }
}

/// A waiter is dropped about when its grant arrives: before it, after it, or with it unseen.
pub(crate) async fn readers_and_writers_dropped_when_just_granted(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    for round in 0..POLLS {
        let writer = here.write_for(fixture.bound()).await.unwrap();
        let (mut one, mut other) = (Box::pin(here.read()), Box::pin(here.write()));
        assert!(poll_once(one.as_mut()).await.is_none(), "it waits");
        assert!(poll_once(other.as_mut()).await.is_none(), "it waits");
        let releasing = tokio::spawn(writer.release());
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        drop(one);
        tokio::task::yield_now().await;
        drop(other);
        releasing.await.unwrap().unwrap();
        let writer = there.write_for(fixture.bound()).await;
        writer.expect("nothing is left").release().await.unwrap();
    }
}

/// One name is one kind of lock for as long as somebody in the process uses it.
pub(crate) async fn kinds_are_not_mixed(fixture: Shared) {
    let provider = fixture.provider();
    let mutex = DistributedLock::on(provider.clone(), "lock");
    let rw = fixture.rw("lock");
    let permits = DistributedSemaphore::on(provider.clone(), "lock", 3);
    let reader = rw.read().await.unwrap();
    for error in [
        mutex.acquire().await.unwrap_err(),
        mutex.try_acquire().await.unwrap_err(),
        permits.acquire().await.unwrap_err(),
        permits.acquire_for(SHORT).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("reader–writer lock"), "{error}");
    }
    assert!(!reader.is_lost());
    reader.release().await.unwrap();
    drop(rw);
    // Whoever still has the name for another kind keeps it.
    let name = "other";
    let mutex = DistributedLock::on(provider.clone(), name);
    let guard = mutex.acquire().await.unwrap();
    let error = fixture.rw(name).write().await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("mutex"), "{error}");
    guard.release().await.unwrap();
}

/// Tokens of grants that exclude each other grow, on two providers in turn.
pub(crate) async fn tokens_of_conflicting_grants_grow(fixture: Shared) {
    if !fixture.provider().capabilities().fencing_tokens {
        return;
    }
    let (here, there) = fixture.two_rw("lock").await;
    let (mut last_write, mut last_read) = (0, 0);
    for round in 0..20 {
        let (one, other) = if round % 2 == 0 {
            (&here, &there)
        } else {
            (&there, &here)
        };
        let writer = one.write_for(fixture.bound()).await.unwrap();
        let token = writer.fencing_token().unwrap().get();
        assert!(
            token > last_write.max(last_read),
            "{token} after {last_write}, {last_read}"
        );
        last_write = token;
        writer.release().await.unwrap();
        let first = one.read_for(fixture.bound()).await.unwrap();
        let second = other.read_for(fixture.bound()).await.unwrap();
        for reader in [first, second] {
            let token = reader.fencing_token().unwrap().get();
            assert!(token > last_write, "{token} after {last_write}");
            last_read = last_read.max(token);
            reader.release().await.unwrap();
        }
    }
}

/// Tasks of two providers read and write at random, and their windows are judged.
pub(crate) async fn windows_of_readers_and_writers(fixture: Shared) {
    let judged = Judged::default();
    let modes = ["read", "read", "read", "write"];
    play(&fixture, "lock", &modes, 8, 25, &judged).await;
    let seen = judged.windows.check();
    assert_eq!(seen.grants.values().sum::<usize>(), 200);
    assert!(seen.most_readers > 1, "{seen:?}");
    assert!(seen.changes_of_holder > 20, "{seen:?}");
}

/// Writers that come one after another do not keep a reader of their process out.
pub(crate) async fn writers_without_a_pause_let_readers_in(fixture: Shared) {
    let lock = fixture.rw("lock");
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let lock = lock.clone();
        writers.spawn(async move {
            loop {
                let guard = lock.write().await.unwrap();
                tokio::task::yield_now().await;
                guard.release().await.unwrap();
            }
        });
    }
    let began = boot_nanos();
    for _ in 0..20 {
        let reader = lock.read_for(fixture.bound()).await;
        reader
            .expect("it is served in its turn")
            .release()
            .await
            .unwrap();
    }
    writers.abort_all();
    let took = Duration::from_nanos(boot_nanos() - began);
    assert!(took < fixture.bound(), "{took:?}");
}
