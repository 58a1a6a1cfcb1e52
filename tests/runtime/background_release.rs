//! Releases whose answer nobody waits for: the option `release`, and `release_in_background`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, Grant, InProcessProvider, LockError,
    LockErrorKind, LockProvider, Timestamp, distributed_lock, shutdown,
};
use lock_tests::{eventually, poll_once};
use tokio::sync::Notify;
use tokio::sync::oneshot;
use tracing::Level;

use crate::dropped_at_every_poll::block_on;
use crate::log::Log;
use crate::own_process::in_own_process;
use crate::{BOUND, lock_on, nothing_held, run, shared};

/// How long the server takes for an answer. What returns within half of it has not waited for one.
const TRIP: Duration = Duration::from_millis(400);

const FAILED: &str = "could not release a lock; its lease will end it";

fn slow_release() -> TestProvider {
    let provider = TestProvider::new();
    provider.delay(Operation::Release, TRIP);
    provider
}

#[test]
fn a_release_returns_before_its_answer() {
    run(async {
        let provider = slow_release();
        let lock = lock_on(&provider, "name").release_in_background();
        let guard = lock.acquire().await.expect("the lock is free");
        let start = Instant::now();
        guard.release().await.expect("it was held");
        assert!(start.elapsed() < TRIP / 2, "{:?}", start.elapsed());
        assert!(provider.is_held("name"), "the server has it for a trip yet");
        // So do others find it, while this process waits for the answer and has the lock then.
        let elsewhere = lock_on(&provider.another_process(), "name");
        assert!(elsewhere.try_acquire().await.expect("no error").is_none());
        let again = lock.try_acquire().await.expect("no error");
        let again = again.expect("free for this process");
        assert!(start.elapsed() >= TRIP, "{:?}", start.elapsed());
        again.release().await.expect("it was held");
        nothing_held(&provider).await;
        // The other way round, a call waits where nothing else is said.
        let guard = lock_on(&provider, "name").acquire().await;
        let guard = guard.expect("the lock is free");
        let start = Instant::now();
        guard.release().await.expect("it was held");
        assert!(start.elapsed() >= TRIP, "{:?}", start.elapsed());
    });
}

#[test]
fn a_waiter_of_the_process_has_it_at_once() {
    run(async {
        // With the same grant, or as soon as the release is answered.
        let one_by_one = TestProvider::new().without_local_hand_over();
        for provider in [TestProvider::new(), one_by_one] {
            let lock = lock_on(&provider, "name").release_in_background();
            let guard = lock.acquire().await.expect("the lock is free");
            let mut waiting = Box::pin(lock.acquire());
            assert!(poll_once(waiting.as_mut()).await.is_none());
            guard.release().await.expect("it was held");
            waiting
                .await
                .expect("its turn comes")
                .release()
                .await
                .expect("it was held");
            nothing_held(&provider).await;
        }
    });
}

#[distributed_lock(name = "called", provider = locks, release = "background")]
async fn called(locks: &Arc<dyn LockProvider>) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "confirmed", provider = locks, release = "confirmed")]
async fn confirmed(locks: &Arc<dyn LockProvider>) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(
    name = "everything",
    provider = locks,
    release = "background",
    on_unavailable = "skip",
    min_hold = "1ms",
    max_hold = "1m",
    lease = "5s",
    guard = lock,
)]
async fn with_everything(locks: &Arc<dyn LockProvider>) -> Option<bool> {
    Some(lock.is_lost())
}

#[async_trait]
trait Job {
    async fn work(&self) -> Result<u8, LockError>;
}

#[async_trait]
impl Job for Arc<dyn LockProvider> {
    #[distributed_lock(name = "trait", provider = self, release = "background")]
    async fn work(&self) -> Result<u8, LockError> {
        tokio::task::yield_now().await;
        Ok(7)
    }
}

#[test]
fn an_annotated_call_returns_before_the_answer() {
    run(async {
        let provider = slow_release();
        let locks = shared(provider.clone());
        let start = Instant::now();
        called(&locks).await.expect("the lock is free");
        assert_eq!(locks.work().await.expect("the lock is free"), 7);
        assert!(start.elapsed() < TRIP / 2, "{:?}", start.elapsed());
        assert!(provider.is_held("called") && provider.is_held("trait"));
        // Past its `min_hold`, so that the release is the provider's.
        let held = with_everything(&locks).await;
        assert_eq!(held, Some(false));
        nothing_held(&provider).await;
        let start = Instant::now();
        confirmed(&locks).await.expect("the lock is free");
        assert!(start.elapsed() >= TRIP, "{:?}", start.elapsed());
    });
}

#[test]
fn methods_that_run_a_body_return_before_the_answer() {
    run(async {
        let provider = slow_release();
        let lock = |name| lock_on(&provider, name).release_in_background();
        let start = Instant::now();
        lock("a").run(async {}).await.expect("the lock is free");
        lock("b")
            .run_with(async |_| {})
            .await
            .expect("the lock is free");
        lock("c").try_run(async {}).await.expect("the lock is free");
        assert!(start.elapsed() < TRIP / 2, "{:?}", start.elapsed());
        nothing_held(&provider).await;
    });
}

#[test]
fn calls_one_after_another_never_find_their_own_lock() {
    run(async {
        let provider = TestProvider::new();
        provider.delay(Operation::Release, Duration::from_millis(1));
        let locks = shared(provider.clone());
        for _ in 0..100 {
            called(&locks).await.expect("only this task uses it");
        }
        nothing_held(&provider).await;
        assert_eq!(provider.calls(Operation::Release), 100);
    });
}

#[test]
fn a_frozen_server_holds_nobody_up() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "name").release_in_background();
        let guard = lock.acquire().await.expect("the lock is free");
        provider.freeze(true);
        let start = Instant::now();
        guard.release().await.expect("it was held");
        assert!(start.elapsed() < TRIP, "{:?}", start.elapsed());
        provider.freeze(false);
        nothing_held(&provider).await;
    });
}

#[test]
fn a_failure_is_returned_or_logged_but_not_both() {
    const PATH: &str = "background_release::a_failure_is_returned_or_logged_but_not_both";
    in_own_process(PATH, &[], || {
        let log = Log::install(Level::WARN);
        run(async move {
            let provider = TestProvider::new();
            let lock = lock_on(&provider, "name").release_in_background();
            // Before it is handed over.
            let guard = lock.acquire().await.expect("the lock is free");
            provider.fail_next(Operation::Release, 1);
            let error = guard.release().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
            provider.forget("name");
            assert_eq!(log.lines_with(FAILED), 0);
            // And after that.
            let guard = lock.acquire().await.expect("the lock is free");
            provider.delay(Operation::Release, TRIP / 4);
            provider.fail_next(Operation::Release, 1);
            guard.release().await.expect("it is handed over");
            eventually("it is logged", BOUND, || async {
                log.lines_with(FAILED) == 1
            })
            .await;
            provider.forget("name");
            // The attribute does the same.
            provider.fail_next(Operation::Release, 1);
            called(&shared(provider.clone())).await.expect("it ran");
            eventually("it is logged", BOUND, || async {
                log.lines_with(FAILED) == 2
            })
            .await;
        });
    });
}

#[test]
fn a_loss_is_told_as_ever() {
    run(async {
        let provider = slow_release();
        let lock = lock_on(&provider, "name").release_in_background();
        let guard = lock.acquire().await.expect("the lock is free");
        provider.lose("name");
        guard.lost().await;
        let error = guard.release().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost);
    });
}

#[test]
fn min_hold_is_kept() {
    run(async {
        let min_hold = Duration::from_millis(300);
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "name")
            .release_in_background()
            .min_hold(min_hold);
        let start = Instant::now();
        let guard = lock.acquire().await.expect("the lock is free");
        guard.release().await.expect("it was held");
        assert!(start.elapsed() < min_hold, "{:?}", start.elapsed());
        assert!(lock.try_acquire().await.expect("no error").is_none());
        nothing_held(&provider).await;
        assert!(start.elapsed() >= min_hold, "{:?}", start.elapsed());
    });
}

#[test]
fn a_provider_that_keeps_a_min_hold_is_not_waited_for_either() {
    run(async {
        let provider = Scripted::default();
        let lock = DistributedLock::on(shared(provider.clone()), "name");
        let lock = lock.min_hold(BOUND).release_in_background();
        let guard = lock.acquire().await.expect("the lock is free");
        guard.release().await.expect("it was held");
        assert!(!provider.0.answered.load(Ordering::SeqCst));
        provider.0.go_on.notify_one();
        eventually("it is answered", BOUND, || async {
            provider.0.answered.load(Ordering::SeqCst)
        })
        .await;
    });
}

#[test]
fn a_task_may_ask_again_at_once_but_not_from_within() {
    #[distributed_lock(name = "nested", provider = locks, timeout = "10s", release = "background")]
    async fn nested(locks: &Arc<dyn LockProvider>, again: bool) -> Result<(), LockError> {
        match again {
            true => Box::pin(nested(locks, false)).await,
            false => Ok(()),
        }
    }
    run(async {
        let provider = slow_release();
        let locks = shared(provider.clone());
        let error = nested(&locks, true).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::WouldDeadlock);
        nested(&locks, false)
            .await
            .expect("it is not held any more");
        nested(&locks, false)
            .await
            .expect("it is not held any more");
        nothing_held(&provider).await;
    });
}

#[test]
fn shutdown_waits_for_the_answers() {
    const PATH: &str = "background_release::shutdown_waits_for_the_answers";
    in_own_process(PATH, &[], || {
        run(async {
            let provider = slow_release();
            let locks = shared(provider.clone());
            called(&locks).await.expect("the lock is free");
            assert!(provider.is_held("called"));
            shutdown().await;
            assert!(!provider.is_held("called"));
        });
    });
}

#[test]
fn it_needs_no_runtime_and_outlives_one() {
    let provider = slow_release();
    let locks = shared(provider.clone());
    block_on(called(&locks)).expect("the lock is free");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime can be built");
    let lock = lock_on(&provider, "other").release_in_background();
    runtime.block_on(async {
        let guard = lock.acquire().await.expect("the lock is free");
        guard.release().await.expect("it was held");
    });
    drop(runtime);
    assert!(provider.is_held("called") && provider.is_held("other"));
    run(async move { nothing_held(&provider).await });
}

#[test]
fn a_lock_of_the_process_alone_is_free_at_once() {
    run(async {
        let locks = shared(InProcessProvider::new());
        for _ in 0..100 {
            called(&locks).await.expect("only this task uses it");
        }
    });
}

/// A provider of somebody else, whose release asks on a thread of its own.
#[derive(Clone, Default)]
struct Scripted(Arc<Script>);

#[derive(Default)]
struct Script {
    asked: AtomicBool,
    panics: AtomicBool,
    go_on: Notify,
    answered: AtomicBool,
}

impl LockProvider for Scripted {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("scripted").with_lease(Duration::from_secs(30))
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move { Ok(Grant::new(request, Timestamp::now())) })
    }

    fn release<'a>(&'a self, _: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let (asked, is_asked) = oneshot::channel();
            let script = Arc::clone(&self.0);
            thread::spawn(move || {
                script.asked.store(true, Ordering::SeqCst);
                let _ = asked.send(());
            });
            self.0.go_on.notified().await;
            assert!(!self.0.panics.load(Ordering::SeqCst), "on purpose");
            is_asked.await.expect("it was asked");
            self.0.answered.store(true, Ordering::SeqCst);
            Ok(())
        })
    }

    fn release_later<'a>(
        &'a self,
        grant: &'a Grant,
        _: Duration,
    ) -> BoxFuture<'a, Result<(), LockError>> {
        self.release(grant)
    }
}

#[test]
fn any_provider_s_release_is_not_waited_for() {
    run(async {
        let provider = Scripted::default();
        let lock = DistributedLock::on(shared(provider.clone()), "name").release_in_background();
        let guard = lock.acquire().await.expect("the lock is free");
        guard.release().await.expect("it was held");
        assert!(!provider.0.answered.load(Ordering::SeqCst));
        provider.0.go_on.notify_one();
        drop(lock.acquire().await.expect("it is answered"));
        assert!(provider.0.asked.load(Ordering::SeqCst));
    });
}

#[test]
fn a_provider_that_panics_later_harms_nobody() {
    const PATH: &str = "background_release::a_provider_that_panics_later_harms_nobody";
    in_own_process(PATH, &[], || {
        let log = Log::install(Level::WARN);
        run(async move {
            let provider = Scripted::default();
            provider.0.panics.store(true, Ordering::SeqCst);
            let lock =
                DistributedLock::on(shared(provider.clone()), "name").release_in_background();
            let guard = lock.acquire().await.expect("the lock is free");
            guard.release().await.expect("it was held");
            provider.0.go_on.notify_one();
            eventually("it is logged", BOUND, || async {
                log.lines_with("the provider panicked") == 1
            })
            .await;
            provider.0.panics.store(false, Ordering::SeqCst);
            drop(lock.acquire().await.expect("it goes on"));
        });
    });
}
