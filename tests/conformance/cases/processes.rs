//! Other processes exclude, and when they end, however they end, others go on.

use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::{History, Scratch, eventually};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::sync::Mutex;

use super::Shared;

/// Returns how long a lock may stay taken whose holder is gone: nothing else can free a lease
/// before it ends.
fn after_a_death(fixture: &Shared) -> Duration {
    fixture.provider().capabilities().lease.unwrap_or_default() + fixture.bound()
}

pub(crate) async fn other_process_holds(fixture: Shared) {
    let lock = fixture.lock("lock");
    let mut other = fixture.probe("lock");
    other.ask("acquire", "acquired", fixture.bound()).await;
    fixture.assert_held(&lock).await;
    let error = lock
        .acquire_for(Duration::from_millis(100))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TimedOut);

    other.ask("release", "releasing", fixture.bound()).await;
    other.expect("released", fixture.bound()).await;
    let guard = lock
        .try_acquire()
        .await
        .unwrap()
        .expect("free after the release");
    let answer = other.ask("try", "failed", fixture.bound()).await;
    assert_eq!(answer[1], "Contended");

    other.tell("acquire");
    guard.release().await.unwrap();
    other.expect("acquired", fixture.bound()).await;
    other.ask("drop", "dropped", fixture.bound()).await;
    fixture.assert_free(&lock).await;
}

pub(crate) async fn other_process_exits(fixture: Shared) {
    let lock = fixture.lock("lock");
    let mut other = fixture.probe("lock");
    other.ask("acquire", "acquired", fixture.bound()).await;
    other.exit();
    let bound = after_a_death(&fixture);
    lock.acquire_for(bound)
        .await
        .expect("free after its holder")
        .release()
        .await
        .unwrap();
}

pub(crate) async fn other_process_is_killed(fixture: Shared) {
    let lock = fixture.lock("lock");
    let mut other = fixture.probe("lock");
    other.ask("acquire", "acquired", fixture.bound()).await;
    let waiting = tokio::spawn({
        let (lock, bound) = (lock.clone(), after_a_death(&fixture));
        async move { lock.acquire_for(bound).await }
    });
    fixture.assert_held(&lock).await;
    other.kill();
    waiting
        .await
        .unwrap()
        .expect("free after its holder")
        .release()
        .await
        .unwrap();
}

/// A process that the holder has started lives on; the lock does not.
pub(crate) async fn child_process_does_not_inherit(fixture: Shared) {
    let lock = fixture.lock("lock");
    let mut other = fixture.probe("lock");
    other.ask("acquire", "acquired", fixture.bound()).await;
    let child = other.ask("child", "child", fixture.bound()).await;
    let child = Pid::from_raw(child[1].parse().unwrap()).unwrap();
    other.kill();
    let freed = lock.acquire_for(after_a_death(&fixture)).await;
    let child_lives = test_kill_process(child).is_ok();
    kill_process(child, Signal::KILL).unwrap();
    freed
        .expect("free after its holder")
        .release()
        .await
        .unwrap();
    assert!(child_lives, "the child outlived the holder");
}

pub(crate) async fn processes_never_overlap(fixture: Shared) {
    const PROCESSES: usize = 4;
    const ROUNDS: usize = 50;
    let scratch = Scratch::new();
    let file = scratch.join("number");
    std::fs::write(&file, "0").unwrap();
    let mut others: Vec<_> = (0..PROCESSES).map(|_| fixture.probe("lock")).collect();
    for other in &mut others {
        other.tell(&format!("work {ROUNDS} {}", file.display()));
    }
    let history = History::default();
    for other in &mut others {
        for held in other.finish_work(Duration::from_secs(50)).await {
            history.record(held);
        }
    }
    let total = PROCESSES * ROUNDS;
    assert_eq!(history.len(), total);
    history.check();
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        total.to_string(),
        "no update was lost"
    );
    assert!(history.changes_of_holder() >= PROCESSES, "they took turns");
}

/// One of several is killed wherever it happens to be; the others go on, and tokens go on growing.
pub(crate) async fn killed_in_the_middle_of_work(fixture: Shared) {
    let scratch = Scratch::new();
    let file = scratch.join("number");
    std::fs::write(&file, "0").unwrap();
    let work = format!("work {} {}", 1_000_000, file.display());
    let lock = fixture.lock("lock");
    let mut highest = 0;
    for round in 0..5 {
        let mut victim = fixture.probe("lock");
        // The same name, with a file that the victim's unfinished write may have emptied.
        victim.tell(&work);
        victim.expect("held", fixture.bound()).await;
        tokio::time::sleep(Duration::from_micros(700 * round)).await;
        victim.kill();
        let guard = lock
            .acquire_for(after_a_death(&fixture))
            .await
            .expect("free after its holder");
        let token = guard.fencing_token().map_or(u64::MAX, |token| token.get());
        assert!(token > highest || token == u64::MAX, "tokens grow");
        highest = token;
        std::fs::write(&file, "0").unwrap();
        guard.release().await.unwrap();
    }
}

pub(crate) async fn dead_waiter_stops_nobody(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    let mut dead = fixture.probe("lock");
    dead.tell("acquire");
    let mut alive = fixture.probe("lock");
    alive.tell("acquire");
    // Time to queue, so that there is something to leave behind; none is needed for the result.
    tokio::time::sleep(Duration::from_millis(200)).await;
    dead.kill();
    guard.release().await.unwrap();
    alive.expect("acquired", after_a_death(&fixture)).await;
    alive.ask("release", "releasing", fixture.bound()).await;
    alive.expect("released", fixture.bound()).await;
    fixture.assert_free(&lock).await;
}

/// A process with a crowd of waiters does not keep the lock from another one.
pub(crate) async fn waiters_of_a_process_are_served_by_another(fixture: Shared) {
    let lock = fixture.lock("lock");
    let crowd: Vec<_> = (0..20)
        .map(|_| {
            let lock = lock.clone();
            tokio::spawn(async move {
                loop {
                    let guard = lock.acquire().await.unwrap();
                    tokio::task::yield_now().await;
                    guard.release().await.unwrap();
                }
            })
        })
        .collect();
    let start = Instant::now();
    let mut other = fixture.probe("lock");
    for _ in 0..3 {
        other
            .ask("acquire", "acquired", Duration::from_secs(20))
            .await;
        other.ask("release", "releasing", fixture.bound()).await;
        other.expect("released", fixture.bound()).await;
    }
    for task in crowd {
        task.abort();
        assert!(
            task.await.unwrap_err().is_cancelled(),
            "it went on for {:?}",
            start.elapsed()
        );
    }
    fixture.assert_free(&lock).await;
}

/// The name that reaches the other process is the same one, whatever is in it.
pub(crate) async fn names_exclude_across_processes(fixture: Shared) {
    let long = "🦉".repeat(256);
    for name in ["a b", "{tag}:é/漢", "'\"`\\", "%2F+&?#=", &long] {
        let mut other = fixture.probe(name);
        other.ask("acquire", "acquired", fixture.bound()).await;
        fixture.assert_held(&fixture.lock(name)).await;
        other.ask("release", "releasing", fixture.bound()).await;
        other.expect("released", fixture.bound()).await;
        fixture.assert_free(&fixture.lock(name)).await;
    }
}

/// This runs in a process of its own, since all tests of this one share its table of keys.
pub(crate) async fn nothing_stays_in_the_process(fixture: Shared) {
    let mut other = fixture.probe("lock");
    for _ in 0..3 {
        other.ask("acquire", "acquired", fixture.bound()).await;
        let keys = other.ask("keys", "keys", fixture.bound()).await;
        assert_eq!(keys[1], "1", "the key that is held");
        other.ask("release", "releasing", fixture.bound()).await;
        other.expect("released", fixture.bound()).await;
    }
    // A waiter that gave up, while the lock is still held elsewhere.
    let guard = fixture.take(&fixture.lock("lock")).await;
    let answer = other.ask("acquire-for 50", "failed", fixture.bound()).await;
    assert_eq!(answer[1], "TimedOut");
    let other = Mutex::new(other);
    eventually("no key is in use", fixture.bound(), || async {
        other
            .lock()
            .await
            .ask("keys", "keys", fixture.bound())
            .await[1]
            == "0"
    })
    .await;
    guard.release().await.unwrap();
}
