//! Readers, writers and holders of permits in other processes, and what their ends leave.

use std::time::Duration;

use lock_runtime::LockMode;
use lock_tests::any_lock::{ModeWord, permits};
use lock_tests::{AnyLock, Probe, Window, Windows, eventually};

use super::Shared;
use crate::fixture::Fixture;

async fn probe_of(fixture: &Fixture, mode: LockMode) -> Probe {
    let mut probe = fixture.probe("lock");
    probe.tell(&format!("as {}", ModeWord(mode)));
    probe
}

async fn give_back(fixture: &Fixture, probe: &mut Probe) {
    probe.ask("release", "releasing", fixture.bound()).await;
    probe.expect("released", fixture.bound()).await;
}

pub(crate) async fn readers_of_processes_share(fixture: Shared) {
    let mut one = probe_of(&fixture, LockMode::Read).await;
    let mut other = probe_of(&fixture, LockMode::Read).await;
    let lock = fixture.rw("lock");
    one.ask("acquire", "acquired", fixture.bound()).await;
    other.ask("try", "acquired", fixture.bound()).await;
    assert!(lock.try_write().await.unwrap().is_none(), "two read");
    let mut writer = probe_of(&fixture, LockMode::Write).await;
    let answer = writer.ask("try", "failed", fixture.bound()).await;
    assert_eq!(answer[1], "Contended");
    give_back(&fixture, &mut one).await;
    let answer = writer
        .ask("acquire-for 400", "failed", fixture.bound())
        .await;
    assert_eq!(answer[1], "TimedOut");
    give_back(&fixture, &mut other).await;
    writer.ask("acquire", "acquired", fixture.bound()).await;
    assert!(lock.try_read().await.unwrap().is_none(), "somebody writes");
    let answer = one.ask("try", "failed", fixture.bound()).await;
    assert_eq!(answer[1], "Contended");
    give_back(&fixture, &mut writer).await;
    lock.read_for(fixture.bound())
        .await
        .expect("nobody writes")
        .release()
        .await
        .unwrap();
}

/// Of two processes that read, one is killed: the writer who waits for both needs the other's end
/// too, and gets in a lease later.
pub(crate) async fn a_killed_reader_costs_a_lease(fixture: Shared) {
    let mut killed = probe_of(&fixture, LockMode::Read).await;
    let mut other = probe_of(&fixture, LockMode::Read).await;
    killed.ask("acquire", "acquired", fixture.bound()).await;
    other.ask("acquire", "acquired", fixture.bound()).await;
    let lock = fixture.rw("lock");
    killed.kill();
    assert!(lock.try_write().await.unwrap().is_none(), "one reads");
    other.ask("is-lost", "valid", fixture.bound()).await;
    give_back(&fixture, &mut other).await;
    let writer = lock.write_for(fixture.after_a_death()).await;
    writer.expect("nobody reads").release().await.unwrap();
}

/// Short reads that never stop, of another process, do not keep a dead reader alive.
pub(crate) async fn a_killed_reader_does_not_live_on_by_others(fixture: Shared) {
    let mut killed = probe_of(&fixture, LockMode::Read).await;
    killed.ask("acquire", "acquired", fixture.bound()).await;
    let lock = fixture.rw("lock");
    let readers = tokio::spawn({
        let lock = lock.clone();
        async move {
            loop {
                let Ok(guard) = lock.read().await else { return };
                tokio::time::sleep(Duration::from_millis(3)).await;
                drop(guard);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    killed.kill();
    // It only tries, so that it holds no reader back.
    let elsewhere = AnyLock::on(LockMode::Write, fixture.elsewhere().await, "lock");
    eventually(
        "a writer that only tries gets in",
        fixture.after_a_death(),
        async || elsewhere.try_acquire().await.unwrap().is_some(),
    )
    .await;
    readers.abort();
}

/// A writer who is killed while it waits holds readers back for a lease at most.
pub(crate) async fn a_killed_waiting_writer_lets_readers_in(fixture: Shared) {
    let lock = fixture.rw("lock");
    let reader = lock.read().await.unwrap();
    let mut killed = probe_of(&fixture, LockMode::Write).await;
    killed.tell("acquire");
    let elsewhere = AnyLock::on(LockMode::Read, fixture.elsewhere().await, "lock");
    eventually("the writer is seen to wait", fixture.bound(), async || {
        elsewhere.try_acquire().await.unwrap().is_none()
    })
    .await;
    killed.kill();
    let second = elsewhere.acquire_for(fixture.after_a_death()).await;
    second.expect("no writer waits").release().await.unwrap();
    eventually(
        "one that does not wait gets in too",
        fixture.after_a_death(),
        async || lock.try_read().await.unwrap().is_some(),
    )
    .await;
    assert!(!reader.is_lost());
    reader.release().await.unwrap();
}

/// Permits of a process that is killed come back, those of the others stay.
pub(crate) async fn killed_holders_of_permits_cost_a_lease(fixture: Shared) {
    let mut killed = probe_of(&fixture, permits(2, 3)).await;
    let mut other = probe_of(&fixture, permits(1, 3)).await;
    killed.ask("acquire", "acquired", fixture.bound()).await;
    other.ask("acquire", "acquired", fixture.bound()).await;
    let semaphore = fixture.permits("lock", 3);
    assert!(
        semaphore.try_acquire().await.unwrap().is_none(),
        "none is left"
    );
    killed.kill();
    let two = semaphore.acquire_many_for(2, fixture.after_a_death()).await;
    let two = two.expect("they are back");
    assert!(
        semaphore.try_acquire().await.unwrap().is_none(),
        "one is out"
    );
    other.ask("is-lost", "valid", fixture.bound()).await;
    give_back(&fixture, &mut other).await;
    two.release().await.unwrap();
    let three = semaphore.acquire_many_for(3, fixture.bound()).await;
    three.expect("all are back").release().await.unwrap();
}

/// One who waits for many and is killed holds those who want one back for a lease at most.
pub(crate) async fn a_killed_waiter_for_permits_stops_nobody(fixture: Shared) {
    let semaphore = fixture.permits("lock", 3);
    let one = semaphore.acquire().await.unwrap();
    let mut killed = probe_of(&fixture, permits(3, 3)).await;
    killed.tell("acquire");
    tokio::time::sleep(Duration::from_millis(200)).await;
    killed.kill();
    let elsewhere = AnyLock::on(permits(1, 3), fixture.elsewhere().await, "lock");
    for _ in 0..3 {
        let another = elsewhere.acquire_for(fixture.after_a_death()).await;
        another.expect("two are free").release().await.unwrap();
    }
    one.release().await.unwrap();
}

/// Processes read, write and take permits at random, wait, try and give up; their windows are
/// judged. One of them is killed half-way.
pub(crate) async fn windows_of_processes(fixture: Shared) {
    let names = "rw,permits,rw-other";
    let mut probes: Vec<_> = (0..4).map(|_| fixture.plain_probe(names)).collect();
    for (seed, probe) in probes.iter_mut().enumerate() {
        let contend = format!("contend-modes 0 {seed}");
        probe.ask(&contend, "contending", fixture.bound()).await;
    }
    let windows = Windows::default();
    // Until each mode was granted a few times, and then again without one of them.
    for least in [5, 12] {
        let listening = async {
            let mut seen = windows.check();
            while ["read", "write", "1/3", "2/3", "3/3", "2/4"]
                .iter()
                .any(|mode| seen.grants.get(*mode).is_none_or(|count| *count < least))
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
                for probe in &mut probes {
                    let holder = probe.id().to_string();
                    while let Some(line) = probe.surprise() {
                        windows.record(Window::parse(&holder, &line));
                    }
                }
                seen = windows.check();
            }
        };
        let all = tokio::time::timeout(2 * fixture.bound(), listening).await;
        assert!(all.is_ok(), "too few: {:?}", windows.check());
        probes[0].kill();
    }
    for probe in &mut probes[1..] {
        probe.tell("stop");
    }
    for probe in &mut probes {
        let lines = probe.lines_until("done", 2 * fixture.bound()).await;
        windows.record_lines(&probe.id().to_string(), &lines);
    }
    let seen = windows.check();
    assert!(seen.most_readers > 1 && seen.most_permits >= 3, "{seen:?}");
    assert!(seen.changes_of_holder > 10, "{seen:?}");
    let whole = AnyLock::on(LockMode::Write, fixture.provider().clone(), "rw");
    let all = AnyLock::on(permits(3, 3), fixture.provider().clone(), "permits");
    for lock in [whole, all] {
        let held = lock.acquire_for(fixture.after_a_death()).await;
        held.expect("everybody is gone").release().await.unwrap();
    }
}
