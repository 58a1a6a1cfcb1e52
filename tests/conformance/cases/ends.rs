//! The last reader, a writer and a holder of permits may end anywhere, early or by a panic.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{LockError, LockMode, LockProvider, distributed_lock};
use lock_tests::any_lock::permits;
use lock_tests::{AnyGuard, AnyLock};
use tokio::runtime::Builder;
use tokio::sync::Notify;

use super::Shared;

thread_local! {
    static KEPT: RefCell<Option<AnyGuard>> = const { RefCell::new(None) };
}

/// Lets a guard end where there is no runtime, or one that ends too.
async fn end(how: usize, guard: AnyGuard) {
    match how {
        0 => std::thread::spawn(move || drop(guard)).join().unwrap(),
        1 => {
            let panicked = std::thread::spawn(move || {
                catch_unwind(AssertUnwindSafe(|| {
                    let _guard = guard;
                    std::panic::resume_unwind(Box::new("with the lock held"));
                }))
                .is_err()
            });
            assert!(panicked.join().unwrap());
        }
        2 => std::thread::spawn(move || KEPT.set(Some(guard)))
            .join()
            .unwrap(),
        _ => {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .build()
                .unwrap();
            runtime.spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            tokio::time::sleep(Duration::from_millis(5)).await;
            runtime.shutdown_background();
        }
    }
}

/// Holds it twice, lets one after the other end somewhere, and checks when it is free.
async fn ends_anywhere(fixture: Shared, mode: LockMode, all: LockMode) {
    let lock = fixture.of(mode, "lock");
    let elsewhere = AnyLock::on(all, fixture.elsewhere().await, "lock");
    for how in 0..4 {
        let first = lock.acquire_for(fixture.bound()).await.unwrap();
        let last = lock.acquire_for(fixture.bound()).await.unwrap();
        end((how + 1) % 4, first).await;
        assert!(
            elsewhere.try_acquire().await.unwrap().is_none(),
            "one is left"
        );
        assert!(!last.is_lost());
        end(how, last).await;
        let whole = elsewhere.acquire_for(fixture.bound()).await;
        whole.expect("nobody has any more").release().await.unwrap();
    }
}

pub(crate) async fn the_last_reader_ends_anywhere(fixture: Shared) {
    ends_anywhere(fixture, LockMode::Read, LockMode::Write).await;
}

pub(crate) async fn permits_end_anywhere(fixture: Shared) {
    ends_anywhere(fixture, permits(1, 3), permits(3, 3)).await;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Success,
    Failure,
    Panic,
    /// The call is dropped in the middle of the body.
    Cancelled,
}

async fn body(ending: Ending, began: &Notify) -> Result<(), LockError> {
    tokio::task::yield_now().await;
    began.notify_one();
    match ending {
        Ending::Success => Ok(()),
        Ending::Failure => Err(LockError::new(lock_runtime::LockErrorKind::Unsupported)),
        Ending::Panic => std::panic::resume_unwind(Box::new("in the body")),
        Ending::Cancelled => std::future::pending().await,
    }
}

const MIN_HOLD: Duration = Duration::from_millis(600);

#[distributed_lock(name = name, provider = provider, mode = "write", min_hold = "600ms")]
async fn written(
    provider: Arc<dyn LockProvider>,
    name: String,
    ending: Ending,
    began: Arc<Notify>,
) -> Result<(), LockError> {
    body(ending, &began).await
}

#[distributed_lock(
    name = name,
    provider = provider,
    permits = 3,
    take = 2,
    min_hold = "600ms"
)]
async fn permitted(
    provider: Arc<dyn LockProvider>,
    name: String,
    ending: Ending,
    began: Arc<Notify>,
) -> Result<(), LockError> {
    body(ending, &began).await
}

/// However the body ends, others get in only when the time is over, and those who wait at once.
async fn keeps_its_time(fixture: Shared, held: LockMode, wanted: LockMode) {
    let elsewhere = fixture.elsewhere().await;
    let mut runs = tokio::task::JoinSet::new();
    for ending in [
        Ending::Success,
        Ending::Failure,
        Ending::Panic,
        Ending::Cancelled,
    ] {
        for waits_elsewhere in [false, true] {
            let provider = fixture.provider().clone();
            let waits_at = if waits_elsewhere {
                elsewhere.clone()
            } else {
                provider.clone()
            };
            let (bound, name) = (fixture.bound(), format!("job-{ending:?}-{waits_elsewhere}"));
            runs.spawn(async move {
                let waiter = AnyLock::on(wanted, waits_at, name.as_str());
                let (asked, began) = (Instant::now(), Arc::new(Notify::new()));
                let in_body = Arc::clone(&began);
                let calling = match held {
                    LockMode::Write => tokio::spawn(written(provider, name, ending, in_body)),
                    _ => tokio::spawn(permitted(provider, name, ending, in_body)),
                };
                began.notified().await;
                if ending == Ending::Cancelled {
                    calling.abort();
                }
                let answer = calling.await;
                match ending {
                    Ending::Success => answer.unwrap().unwrap(),
                    Ending::Failure => drop(answer.unwrap().unwrap_err()),
                    Ending::Panic => assert!(answer.unwrap_err().is_panic()),
                    Ending::Cancelled => assert!(answer.unwrap_err().is_cancelled()),
                }
                // The call may have ended late, but the lock does not stay for longer because of it.
                let ended = Instant::now();
                let contended = waiter.try_acquire().await.unwrap();
                assert!(
                    contended.is_none() || asked.elapsed() >= MIN_HOLD,
                    "{ending:?}"
                );
                drop(contended);
                let next = waiter.acquire_for(MIN_HOLD + bound).await.unwrap();
                assert!(
                    asked.elapsed() >= MIN_HOLD,
                    "{ending:?} after {:?}",
                    asked.elapsed()
                );
                let late = ended.elapsed().saturating_sub(MIN_HOLD);
                assert!(late < bound / 5, "{ending:?} {late:?} too late");
                next.release().await.unwrap();
            });
        }
    }
    while let Some(done) = runs.join_next().await {
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    }
}

pub(crate) async fn a_written_lock_keeps_its_min_hold(fixture: Shared) {
    keeps_its_time(fixture.clone(), LockMode::Write, LockMode::Read).await;
}

pub(crate) async fn permits_keep_their_min_hold(fixture: Shared) {
    keeps_its_time(fixture, permits(2, 3), permits(2, 3)).await;
}
