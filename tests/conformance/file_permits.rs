//! Semaphores in files, between providers that are apart as processes are, and between processes.

use std::fs::File;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lock_runtime::{AcquireRequest, DistributedSemaphore, LockErrorKind, LockMode, LockProvider};
use lock_tests::{Scratch, Windows, eventually, run};
use rustix::fs::{FlockOperation, flock};

use crate::file_modes::{Directory, Foreign, ask, get, is_free, wait, within};
use crate::file_only::{BOUND, DEADLINE};
use crate::file_shared::TOLD_WITHIN;

fn permits(take: u32, limit: u32) -> LockMode {
    LockMode::Permits {
        limit: NonZeroU32::new(limit).unwrap(),
        take: NonZeroU32::new(take).unwrap(),
    }
}

#[test]
fn as_many_as_there_are() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let mut grants = Vec::new();
        for process in [&one, &other, &one] {
            assert!(is_free(&other, permits(1, 3)).await);
            let grant = get(process, permits(1, 3)).await;
            assert_eq!(grant.token(), None, "permits have no order");
            grants.push((process, grant));
        }
        assert_eq!(directory.files().len(), 3);
        for process in [&one, &other] {
            assert!(!is_free(process, permits(1, 3)).await);
        }
        assert!(
            is_free(&one, LockMode::Write).await,
            "another kind is another lock"
        );
        let waiting = wait(directory.process(), permits(1, 3));
        let (process, grant) = grants.remove(1);
        process.release(&grant).await.unwrap();
        let (waiter, grant) = within(waiting).await;
        assert!(!is_free(&one, permits(1, 3)).await);
        waiter.release(&grant).await.unwrap();
        for (process, grant) in grants {
            process.release(&grant).await.unwrap();
        }
        assert_eq!(directory.files(), [""; 0]);
    });
}

#[test]
fn several_are_taken_at_once_or_none() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let three = get(&one, permits(3, 5)).await;
        assert_eq!(directory.files().len(), 3, "the turnstile is gone");
        assert!(!is_free(&other, permits(3, 5)).await);
        assert_eq!(directory.files().len(), 3, "none is kept");
        let two = get(&other, permits(2, 5)).await;
        assert!(!is_free(&one, permits(1, 5)).await);
        one.release(&three).await.unwrap();
        assert!(is_free(&one, permits(3, 5)).await);
        other.release(&two).await.unwrap();
        assert!(is_free(&one, permits(5, 5)).await);
        let error = ask(&one, permits(6, 5), true).await.expect_err("too many");
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert_eq!(directory.files(), [""; 0]);
    });
}

/// Each applies its own limit, to the permits below it.
#[test]
fn limits_may_differ() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let three = get(&one, permits(3, 3)).await;
        let two = get(&other, permits(2, 5)).await;
        assert!(
            !is_free(&one, permits(1, 5)).await,
            "never more than the largest"
        );
        one.release(&three).await.unwrap();
        assert!(is_free(&one, permits(3, 3)).await);
        assert!(!is_free(&one, permits(4, 5)).await);
        other.release(&two).await.unwrap();
    });
}

/// While somebody looks whether there are enough, nobody takes that for permits that are out.
#[test]
fn who_fits_is_never_refused() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let mut tasks = tokio::task::JoinSet::new();
        for take in [2, 2, 1] {
            let process = directory.process();
            tasks.spawn(async move {
                for round in 0..400 {
                    let free = is_free(&process, permits(take, 5)).await;
                    assert!(free, "{take} in round {round}");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
}

/// While somebody takes permits, nobody knows yet whether they are out.
#[test]
fn a_permit_without_its_mark_is_looked_at_again() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let process = directory.process();
        let grant = get(&process, permits(1, 1)).await;
        let file = directory.0.join(&directory.files()[0]);
        process.release(&grant).await.unwrap();
        let taking = Foreign::start("--exclusive", &file);
        let looking = ask(&process, permits(1, 1), false);
        let stops = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(taking);
        };
        let (answer, ()) = tokio::join!(looking, stops);
        process.release(&answer.unwrap()).await.unwrap();
        // But not for ever.
        let _held = Foreign::start("--exclusive", &file);
        assert!(!is_free(&process, permits(1, 1)).await);
    });
}

fn stream(
    directory: &Directory,
    stop: &Arc<AtomicBool>,
    takes: &[u32],
) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for &take in takes {
        let (process, stop) = (directory.process(), stop.clone());
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let grant = ask(&process, permits(take, 3), true).await.unwrap();
                tokio::time::sleep(Duration::from_millis(4)).await;
                process.release(&grant).await.unwrap();
            }
        });
    }
    tasks
}

async fn is_served_beside(takes: &[u32], take: u32) {
    let directory = Directory::new();
    let stop = Arc::new(AtomicBool::new(false));
    let others = stream(&directory, &stop, takes);
    tokio::time::sleep(Duration::from_millis(20)).await;
    for _ in 0..5 {
        let start = Instant::now();
        let (process, grant) = within(wait(directory.process(), permits(take, 3))).await;
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs(3),
            "{take} beside {takes:?}: {took:?}"
        );
        process.release(&grant).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    others.join_all().await;
}

#[test]
fn who_takes_many_is_not_starved() {
    run(DEADLINE, is_served_beside(&[1, 1, 1, 1], 3));
}

#[test]
fn who_takes_one_is_not_starved() {
    run(DEADLINE, is_served_beside(&[3, 3, 3], 1));
}

/// Permits that a process takes again and again, for others to wait for.
#[test]
fn a_busy_process_does_not_starve_another() {
    run(DEADLINE, is_served_beside(&[1, 1, 1], 1));
}

#[test]
fn a_huge_limit_costs_little() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let process = directory.process();
        let name = "ä".repeat(80);
        let limit = permits(1, u32::MAX);
        let ask = async |take| {
            let (request, _interest) = AcquireRequest::new(&*name, BOUND, false).unwrap();
            process
                .acquire(&request.with_mode(permits(take, u32::MAX)))
                .await
        };
        let start = Instant::now();
        let mut grants = Vec::new();
        for _ in 0..100 {
            grants.push(ask(1).await.unwrap());
        }
        grants.push(ask(100).await.unwrap());
        assert_eq!(directory.files().len(), 200);
        for grant in &grants {
            process.release(grant).await.unwrap();
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(directory.files(), [""; 0]);
        assert!(is_free(&process, limit).await);
    });
}

/// More are out than are looked at one by one at first.
#[test]
fn the_last_of_many_is_found() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let many = get(&one, permits(199, 200)).await;
        let last = get(&other, permits(1, 200)).await;
        assert!(!is_free(&one, permits(1, 200)).await);
        one.release(&many).await.unwrap();
        assert!(is_free(&one, permits(199, 200)).await);
        other.release(&last).await.unwrap();
    });
}

#[test]
fn a_killed_holder_frees_its_permits() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let mut probe = directory.probe();
        probe.ask("wait 3/3", "granted", BOUND).await;
        let process = directory.process();
        assert!(!is_free(&process, permits(1, 3)).await);
        let waiting = wait(directory.process(), permits(2, 3));
        probe.kill();
        let (waiter, grant) = within(waiting).await;
        waiter.release(&grant).await.unwrap();
        // What is left goes with whoever takes it next.
        assert!(is_free(&process, permits(3, 3)).await);
        assert_eq!(directory.files(), [""; 0]);
    });
}

/// One that is killed while it collects leaves its turnstile, and what it had.
#[test]
fn a_killed_collector_stops_nobody() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let process = directory.process();
        let held = get(&process, permits(1, 3)).await;
        let mut probe = directory.probe();
        probe.tell("wait 3/3");
        eventually("it collects", BOUND, async || {
            !is_free(&process, permits(1, 3)).await
        })
        .await;
        probe.kill();
        assert!(is_free(&process, permits(2, 3)).await);
        process.release(&held).await.unwrap();
        assert!(is_free(&process, permits(3, 3)).await);
        assert_eq!(directory.files(), [""; 0]);
    });
}

/// Several permits are one grant: without one of them it is lost, and the others are given back.
#[test]
fn one_permit_that_is_gone_is_the_loss_of_all() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let process = directory.process();
        let grant = get(&process, permits(3, 3)).await;
        let one = directory.files().remove(1);
        std::fs::remove_file(directory.0.join(&one)).unwrap();
        let error = process.release(&grant).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        assert!(is_free(&process, permits(3, 3)).await);
        assert_eq!(directory.files(), [""; 0]);
    });
}

#[test]
fn a_permit_that_is_gone_is_told() {
    run(DEADLINE, async {
        let directory = Directory::new();
        for gone in 0..3 {
            let semaphore = DistributedSemaphore::on(Arc::new(directory.process()), "abc", 3);
            let permits = semaphore.acquire_many(3).await.unwrap();
            let one = directory.files().remove(gone);
            std::fs::remove_file(directory.0.join(&one)).unwrap();
            let told = tokio::time::timeout(TOLD_WITHIN, permits.lost()).await;
            assert!(told.is_ok(), "the holder is told");
            drop(permits);
            assert!(semaphore.acquire_many(3).await.is_ok());
        }
    });
}

#[test]
fn more_than_a_process_can_open_are_refused_at_once() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let semaphore = DistributedSemaphore::on(Arc::new(directory.process()), "abc", u32::MAX);
        let error = semaphore.try_acquire_many(u32::MAX).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert_eq!(directory.files(), [""; 0]);
    });
}

async fn mixed(words: &str, least: u64) {
    let directory = Directory::new();
    let mut probes: Vec<_> = (0..4).map(|_| directory.probe()).collect();
    for (seed, probe) in probes.iter_mut().enumerate() {
        probe.tell(&format!("mix 2000 {seed} {words}"));
    }
    let windows = Windows::default();
    for probe in &mut probes {
        let lines = probe.lines_until("done", DEADLINE).await;
        windows.record_lines(&probe.id().to_string(), &lines);
    }
    let seen = windows.check();
    for word in words.split(' ') {
        assert!(seen.grants[word] > 10, "{seen:?}");
    }
    assert!(seen.most_permits >= least, "{seen:?}");
    assert_eq!(directory.files(), [""; 0]);
}

#[test]
fn never_more_than_the_limit_are_out() {
    run(DEADLINE, mixed("1/3 1/3 2/3 3/3", 3));
}

#[test]
fn never_more_than_the_largest_limit_are_out() {
    run(DEADLINE, mixed("1/3 1/5 2/5 3/3", 4));
}

/// The kernel gives its list of locks in parts, and others lock and unlock between two of them.
#[test]
fn busy_neighbours_hide_no_holder() {
    if !Path::new("/proc/locks").exists() {
        lock_tests::skip::because("the system lists no locks");
        return;
    }
    run(DEADLINE, async {
        let directory = Directory::new();
        let lock = DistributedSemaphore::on(Arc::new(directory.process()), "lock", 5);
        let permits = lock.acquire_many(3).await.unwrap();
        let _neighbour = Neighbour::start();
        for _ in 0..200 {
            let state = lock.inspect().await.unwrap();
            assert_eq!(state.available(), Some(2), "{state:?}");
        }
        permits.release().await.unwrap();
    });
}

/// A thread that locks and unlocks many files of its own, until this is dropped.
struct Neighbour {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    fn start() -> Self {
        let scratch = Scratch::new();
        let file = |number: u32| File::create(scratch.join(&number.to_string())).unwrap();
        let files: Vec<_> = (0..200).map(file).collect();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let all = |operation| {
                    files
                        .iter()
                        .for_each(|file| flock(file, operation).unwrap())
                };
                all(FlockOperation::LockExclusive);
                all(FlockOperation::Unlock);
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}
