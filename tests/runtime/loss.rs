//! Bodies that are dropped because the lock is lost, or held for too long.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{LockError, LockErrorKind, LockProvider, distributed_lock};
use lock_tests::poll_once;

use tracing::Level;

use crate::log::Log;
use crate::own_process::in_own_process;
use crate::{BOUND, nothing_held, run, shared};

/// Notes when it is dropped, and whether its lock was held then.
struct Witness {
    provider: TestProvider,
    name: &'static str,
    started: Arc<AtomicBool>,
    dropped: Arc<AtomicBool>,
    held_when_dropped: Arc<AtomicBool>,
}

impl Witness {
    fn new(provider: &TestProvider, name: &'static str) -> Self {
        Self {
            provider: provider.clone(),
            name,
            started: Arc::default(),
            dropped: Arc::default(),
            held_when_dropped: Arc::default(),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.held_when_dropped
            .store(self.provider.is_held(self.name), Ordering::SeqCst);
        self.dropped.store(true, Ordering::SeqCst);
    }
}

#[distributed_lock(name = "loss", provider = locks)]
async fn for_ever(locks: &Arc<dyn LockProvider>, witness: Witness) -> Result<(), LockError> {
    witness.started.store(true, Ordering::SeqCst);
    std::future::pending().await
}

#[distributed_lock(name = "max-hold", provider = locks, max_hold = "60ms")]
async fn too_long(locks: &Arc<dyn LockProvider>, _witness: Witness) -> Result<(), LockError> {
    std::future::pending().await
}

#[distributed_lock(name = "guarded", provider = locks, guard = guard)]
async fn guarded(locks: &Arc<dyn LockProvider>, _witness: Witness) -> Result<u64, LockError> {
    tokio::task::yield_now().await;
    assert!(!guard.is_lost());
    Ok(guard
        .fencing_token()
        .expect("the provider gives tokens")
        .get())
}

#[distributed_lock(name = "finishes", provider = locks)]
async fn finishes(locks: &Arc<dyn LockProvider>) -> Result<u32, LockError> {
    Ok(7)
}

#[test]
fn a_lost_lock_drops_the_body_before_the_call_returns() {
    run(async {
        let provider = TestProvider::new();
        let locks = shared(provider.clone());
        let witness = Witness::new(&provider, "loss");
        let (started, dropped) = (Arc::clone(&witness.started), Arc::clone(&witness.dropped));
        let mut call = pin!(for_ever(&locks, witness));
        while !started.load(Ordering::SeqCst) {
            assert!(poll_once(call.as_mut()).await.is_none());
            tokio::task::yield_now().await;
        }
        provider.lose("loss");
        let start = Instant::now();
        let error = call.await.unwrap_err();
        assert!(
            start.elapsed() < Duration::from_millis(50),
            "after {:?}",
            start.elapsed()
        );
        assert_eq!(error.kind(), LockErrorKind::Lost);
        assert!(dropped.load(Ordering::SeqCst));
    });
}

#[test]
fn a_frozen_server_drops_the_body_before_its_lease_ends() {
    run(async {
        // Long enough for its margin to outlast a busy machine.
        let lease = Duration::from_secs(10);
        let provider = TestProvider::new().with_lease(lease);
        let locks = shared(provider.clone());
        provider.delay(Operation::Renew, lease * 100);
        let witness = Witness::new(&provider, "loss");
        let held = Arc::clone(&witness.held_when_dropped);
        let error = for_ever(&locks, witness).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost);
        assert!(
            held.load(Ordering::SeqCst),
            "the server's lease ended before the body did"
        );
    });
}

#[test]
fn max_hold_drops_the_body_while_the_lock_is_held() {
    run(async {
        let provider = TestProvider::new();
        let witness = Witness::new(&provider, "max-hold");
        let held = Arc::clone(&witness.held_when_dropped);
        let start = Instant::now();
        let error = too_long(&shared(provider.clone()), witness)
            .await
            .unwrap_err();
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert_eq!(error.kind(), LockErrorKind::MaxHoldExceeded);
        assert!(held.load(Ordering::SeqCst));
        assert!(
            !provider.is_held("max-hold"),
            "released before the call returned"
        );
    });
}

#[test]
fn max_hold_does_not_need_a_lease() {
    run(async {
        let provider = TestProvider::new();
        let in_process = shared(lock_runtime::InProcessProvider::new());
        let witness = Witness::new(&provider, "nobody holds this");
        let error = too_long(&in_process, witness).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::MaxHoldExceeded);
    });
}

#[test]
fn a_call_dropped_half_way_drops_its_locals_before_the_lock() {
    run(async {
        let provider = TestProvider::new();
        let locks = shared(provider.clone());
        for name in ["loss", "guarded"] {
            let witness = Witness::new(&provider, name);
            let held = Arc::clone(&witness.held_when_dropped);
            let mut call: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match name {
                "loss" => Box::pin(async { drop(for_ever(&locks, witness).await) }),
                _ => Box::pin(async { drop(guarded(&locks, witness).await) }),
            };
            while !provider.is_held(name) {
                assert!(poll_once(call.as_mut()).await.is_none());
            }
            assert!(poll_once(call.as_mut()).await.is_none() || name == "guarded");
            drop(call);
            assert!(held.load(Ordering::SeqCst), "{name}");
            nothing_held(&provider).await;
        }
    });
}

#[test]
fn the_body_sees_its_guard() {
    run(async {
        let provider = TestProvider::new();
        let locks = shared(provider.clone());
        let first = guarded(&locks, Witness::new(&provider, "guarded")).await;
        let second = guarded(&locks, Witness::new(&provider, "guarded")).await;
        assert!(first.expect("it is free") < second.expect("it is free"));
    });
}

#[test]
fn a_release_that_fails_does_not_change_the_result() {
    run(async {
        let provider = TestProvider::new();
        let locks = shared(provider.clone());
        provider.fail_next(Operation::Release, 1);
        assert_eq!(finishes(&locks).await.expect("the body finished"), 7);
        assert!(provider.is_held("finishes"), "the release did fail");
    });
}

#[distributed_lock(name = "last-poll", provider = locks)]
async fn lost_in_its_last_poll(
    locks: &Arc<dyn LockProvider>,
    provider: &TestProvider,
) -> Result<u8, LockError> {
    tokio::task::yield_now().await;
    provider.lose("last-poll");
    Ok(7)
}

#[test]
fn a_loss_in_the_last_poll_is_said_once_and_the_result_is_kept() {
    in_own_process(
        "loss::a_loss_in_the_last_poll_is_said_once_and_the_result_is_kept",
        &[],
        || {
            let log = Log::install(Level::WARN);
            run(async move {
                let provider = TestProvider::new();
                let locks = shared(provider.clone());
                let ran = lost_in_its_last_poll(&locks, &provider).await;
                assert_eq!(ran.expect("the body ran to its end"), 7);
                nothing_held(&provider).await;
                let said = || async { log.lines_with("lost a lock") == 1 };
                lock_tests::eventually("the loss is said", BOUND, said).await;
                assert_eq!(log.lines_with("WARN"), 1, "and nothing else");
                let line = log.line_with("lost a lock");
                for field in [
                    "lock=\"last-poll\"",
                    "template=\"last-poll\"",
                    "provider=\"test\"",
                ] {
                    assert!(line.contains(field), "no {field} in {line}");
                }
            });
        },
    );
}

/// Holds its thread for a while, so that its loss reaches it late.
#[distributed_lock(name = "reported", provider = locks)]
async fn blocks(
    locks: &Arc<dyn LockProvider>,
    provider: &TestProvider,
    running: &AtomicBool,
) -> Result<(), LockError> {
    assert!(!running.swap(true, Ordering::SeqCst), "two bodies at once");
    provider.lose("reported");
    std::thread::sleep(Duration::from_millis(300));
    running.store(false, Ordering::SeqCst);
    tokio::task::yield_now().await;
    Ok(())
}

#[test]
fn after_a_reported_loss_too_the_next_body_waits_for_the_first_one_s_end() {
    run(async {
        let provider = TestProvider::new();
        let locks = shared(provider.clone());
        let running = Arc::new(AtomicBool::new(false));
        let first = {
            let (locks, provider, running) = (locks.clone(), provider.clone(), running.clone());
            tokio::spawn(async move { blocks(&locks, &provider, &running).await })
        };
        while !running.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let lock = lock_runtime::DistributedLock::on(locks, "reported");
        let guard = lock.acquire_for(BOUND).await.expect("its turn comes");
        assert!(!running.load(Ordering::SeqCst), "the first one still runs");
        assert!(!guard.is_lost());
        drop(guard);
        let ended = first.await.expect("no panic").unwrap_err();
        assert_eq!(ended.kind(), LockErrorKind::Lost);
    });
}

/// The guard of a lost lock is gone, so nobody in this process has the lock any more.
#[test]
fn a_lost_lock_is_held_by_nobody_when_its_guard_is_gone() {
    run(async {
        let provider = TestProvider::new();
        let lock = crate::lock_on(&provider, "gone");
        for round in 0..2_000 {
            let guard = lock.acquire().await.expect("nobody else wants it");
            provider.lose("gone");
            while !guard.is_lost() {
                tokio::task::yield_now().await;
            }
            drop(guard);
            let next = lock.try_acquire().await.expect("the provider answers");
            assert!(next.is_some(), "round {round}");
        }
    });
}
