//! Providers of others that break their contract. Each harms its own locks alone, and none in
//! silence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, Grant, LockError, LockErrorKind,
    LockGuard, LockProvider, Skipped, Timestamp, distributed_lock,
};
use lock_tests::{eventually, poll_once};
use tracing::Level;

use super::double::{Double, Fault, LEASE};
use crate::log::Log;
use crate::own_process::in_own_process;
use crate::{BOUND, lock_on, run, shared};

const UNAVAILABLE: LockErrorKind = LockErrorKind::ProviderUnavailable;

fn kind<T>(result: Result<T, LockError>) -> LockErrorKind {
    result.map(drop).unwrap_err().kind()
}

async fn take(lock: &DistributedLock) -> LockGuard {
    lock.acquire().await.expect("the lock is free")
}

#[test]
fn grants_that_come_late_are_not_asked_for_in_a_loop() {
    in_own_process(
        "custom_providers::misbehaving::grants_that_come_late_are_not_asked_for_in_a_loop",
        &[],
        || {
            let log = Log::install(Level::WARN);
            run(async move {
                let provider = Double::new(Fault::GrantsLate);
                let lock = provider.lock("late");
                assert_eq!(kind(lock.acquire().await), UNAVAILABLE);
                let calls = provider.inner.calls(Operation::Acquire);
                assert_eq!(calls, 3, "and then an end");
                assert_eq!(
                    log.lines_with("grants arrive when their lease has ended"),
                    1
                );
                assert!(log.line_with("grants arrive").contains("lock=late"));
                assert_eq!(kind(lock.try_acquire().await), UNAVAILABLE);
                let timed = lock.acquire_for(Duration::from_millis(50)).await;
                assert_eq!(kind(timed), UNAVAILABLE, "nobody was seen to hold it");
            });
        },
    );
}

#[test]
fn dates_in_the_future_are_not_believed() {
    run(async {
        for fault in [Fault::DatesGrantsAhead, Fault::RenewsWithTheEnd] {
            let provider = Double::new(fault);
            let guard = take(&provider.lock("ahead")).await;
            // Longer than a lease: what is renewed stays, by its answers' own time.
            tokio::time::sleep(LEASE * 2).await;
            assert!(!guard.is_lost(), "{fault:?}: it is renewed");
            provider.inner.freeze(true);
            drop(guard);
        }
        let stopped = Double::new(Fault::DatesGrantsAhead);
        stopped.inner.delay(Operation::Renew, BOUND);
        let guard = take(&lock_on_ahead(&stopped)).await;
        let start = Instant::now();
        guard.lost().await;
        assert!(start.elapsed() < LEASE * 2, "after {:?}", start.elapsed());
    });
}

/// Makes a lock whose grants are dated ahead. Its renewals go to the test provider, which delays
/// them.
fn lock_on_ahead(provider: &Arc<Double>) -> DistributedLock {
    struct RenewsHonestly(Arc<Double>);
    impl LockProvider for RenewsHonestly {
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }
        fn acquire<'a>(
            &'a self,
            request: &'a AcquireRequest,
        ) -> BoxFuture<'a, Result<Grant, LockError>> {
            self.0.acquire(request)
        }
        fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
            self.0.inner.renew(grant)
        }
        fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
            self.0.release(grant)
        }
    }
    DistributedLock::on(shared(RenewsHonestly(Arc::clone(provider))), "ahead")
}

#[distributed_lock(name = "says", provider = locks, on_unavailable = "skip")]
async fn skips(locks: &Arc<dyn LockProvider>) -> Result<Ran, LockError> {
    Ok(Ran(true))
}

#[derive(Debug, PartialEq)]
struct Ran(bool);

impl Skipped for Ran {
    fn skipped() -> Self {
        Ran(false)
    }
}

#[test]
fn kinds_that_only_the_library_knows_are_not_taken_from_a_provider() {
    run(async {
        for said in [
            LockErrorKind::TimedOut,
            LockErrorKind::Lost,
            LockErrorKind::WouldDeadlock,
            LockErrorKind::MaxHoldExceeded,
            LockErrorKind::NoProvider,
        ] {
            let provider = Double::new(Fault::Says(said));
            let lock = provider.lock("says");
            for error in [
                lock.acquire().await.unwrap_err(),
                lock.try_acquire().await.unwrap_err(),
                lock.acquire_for(LEASE).await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), UNAVAILABLE, "{said:?}");
                let source = std::error::Error::source(&error).expect("the original");
                let source = source.downcast_ref::<LockError>().expect("a lock's error");
                assert_eq!(source.kind(), said);
            }
            let locks: Arc<dyn LockProvider> = provider;
            assert_eq!(kind(skips(&locks).await), UNAVAILABLE, "{said:?}");
        }
        // Right for a call that does not wait, and nonsense for one that does.
        let lock = Double::new(Fault::Says(LockErrorKind::Contended)).lock("says");
        assert_eq!(kind(lock.acquire().await), UNAVAILABLE);
        assert!(lock.try_acquire().await.expect("it is refused").is_none());
    });
}

#[test]
fn capabilities_that_panic_leave_no_waiter_behind() {
    run(async {
        for after in 0..4 {
            let provider = Double::new(Fault::PanicsInCapabilities(after));
            let lock = provider.lock("panics");
            for _ in 0..3 {
                match lock.acquire_for(BOUND).await {
                    Ok(guard) => drop(guard),
                    Err(error) => assert_eq!(error.kind(), UNAVAILABLE),
                }
            }
            crate::nothing_held(&provider.inner).await;
        }
    });
}

#[test]
fn a_renewal_that_panics_loses_its_own_lock_alone() {
    run(async {
        let one_by_one = Double::new(Fault::OneRenewalPanics);
        let together: Arc<dyn LockProvider> =
            Arc::new(RenewAllPanics(TestProvider::new().with_lease(LEASE)));
        for provider in [one_by_one as Arc<dyn LockProvider>, together] {
            let lock = |name: &str| DistributedLock::on(Arc::clone(&provider), name);
            let bad = take(&lock("bad")).await;
            let mut others = Vec::new();
            for number in 0..5 {
                others.push(take(&lock(&format!("good:{number}"))).await);
            }
            bad.lost().await;
            tokio::time::sleep(LEASE * 2).await;
            assert_eq!(others.iter().filter(|guard| guard.is_lost()).count(), 0);
        }
    });
}

/// Renews all in one call, which panics if the bad one is among them.
struct RenewAllPanics(TestProvider);

impl LockProvider for RenewAllPanics {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.acquire(request)
    }

    fn renew_all<'a>(
        &'a self,
        grants: &'a [Arc<Grant>],
    ) -> BoxFuture<'a, Vec<Result<Timestamp, LockError>>> {
        Box::pin(async move {
            let bad = grants.iter().any(|grant| grant.name() == "bad");
            assert!(!bad, "on purpose");
            let mut answers = Vec::new();
            for grant in grants {
                answers.push(self.0.renew(grant).await);
            }
            answers
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }
}

/// Has leases, and leaves out what keeps them.
struct NoRenew(TestProvider);

impl LockProvider for NoRenew {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.acquire(request)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }
}

#[test]
fn a_lease_that_nobody_renews_is_lost() {
    run(async {
        let provider = shared(NoRenew(TestProvider::new().with_lease(LEASE)));
        let guard = take(&DistributedLock::on(provider, "unrenewed")).await;
        let start = Instant::now();
        guard.lost().await;
        assert!(start.elapsed() < LEASE * 2, "after {:?}", start.elapsed());
    });
}

#[test]
fn a_release_that_is_never_answered_is_given_up_with_its_lease() {
    run(async {
        let lock = Double::new(Fault::ReleaseHangs).lock("hangs");
        for _ in 0..3 {
            let start = Instant::now();
            let guard = lock.acquire_for(BOUND).await.expect("the server let it go");
            assert!(start.elapsed() < LEASE * 3, "after {:?}", start.elapsed());
            drop(guard);
        }
    });
}

#[test]
fn an_acquisition_that_hangs_is_bounded_and_said() {
    in_own_process(
        "custom_providers::misbehaving::an_acquisition_that_hangs_is_bounded_and_said",
        &[],
        || {
            let log = Log::install(Level::WARN);
            run(async move {
                let lock = Double::new(Fault::AcquireHangs).lock("hangs");
                for millis in [50, 300] {
                    let timeout = Duration::from_millis(millis);
                    let start = Instant::now();
                    let error = lock.acquire_for(timeout).await.unwrap_err();
                    assert_eq!(error.kind(), UNAVAILABLE);
                    let expected = format!("no answer within {millis}ms");
                    assert!(error.to_string().contains(&expected), "{error}");
                    let late = start.elapsed().saturating_sub(timeout);
                    assert!(late < Duration::from_millis(50), "late by {late:?}");
                    let skipped = lock.try_acquire_for(timeout).await;
                    assert_eq!(kind(skipped), UNAVAILABLE);
                }
                let start = Instant::now();
                assert_eq!(kind(lock.try_acquire().await), UNAVAILABLE);
                assert!(start.elapsed() < Duration::from_secs(3));
                let said = || async { log.lines_with("has not answered yet") == 1 };
                eventually("a line says so", BOUND, said).await;
                let line = log.line_with("has not answered yet");
                for part in ["lock=hangs", "provider=\"test\"", "operation=\"acquire\""] {
                    assert!(line.contains(part), "no {part} in {line}");
                }
            });
        },
    );
}

#[test]
fn tokens_that_do_not_grow_are_not_handed_out() {
    in_own_process(
        "custom_providers::misbehaving::tokens_that_do_not_grow_are_not_handed_out",
        &[],
        || {
            let log = Log::install(Level::WARN);
            run(async move {
                for fault in [Fault::TokensFall, Fault::TokensStay] {
                    let lock = Double::new(fault).lock("tokens");
                    let mut tokens = Vec::new();
                    for _ in 0..3 {
                        let guard = take(&lock).await;
                        tokens.extend(guard.fencing_token());
                        guard.release().await.expect("it was held");
                    }
                    assert_eq!(tokens.len(), 1, "{fault:?}: {tokens:?}");
                }
                assert_eq!(log.lines_with("fencing token is not above"), 4);
            });
        },
    );
}

#[test]
fn a_pass_on_that_panics_frees_the_lock() {
    run(async {
        let provider = Double::new(Fault::PassOnPanics);
        let lock = provider.lock("passed").lease(Duration::from_secs(60));
        let guard = take(&lock).await;
        // With another lease, it is not handed over inside the process.
        let other = lock.clone().lease(LEASE);
        let mut waiting = Box::pin(other.acquire());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        drop(guard);
        assert_eq!(kind(waiting.await), UNAVAILABLE);
        let start = Instant::now();
        drop(lock.acquire_for(BOUND).await.expect("it was given back"));
        assert!(start.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn a_provider_that_blocks_is_named() {
    in_own_process(
        "custom_providers::misbehaving::a_provider_that_blocks_is_named",
        &[],
        || {
            let log = Log::install(Level::WARN);
            run(async move {
                drop(take(&Double::new(Fault::Blocks(150)).lock("blocks")).await);
                let line = log.line_with("blocked the thread");
                for part in ["provider=\"test\"", "operation=\"acquire\""] {
                    assert!(line.contains(part), "no {part} in {line}");
                }
                let blocked = line.split("blocked_ms=").nth(1).expect("how long");
                let blocked: u64 = blocked.trim().parse().expect("a number");
                // The clock is a coarse one, and a loaded machine takes its time.
                assert!((140..1_000).contains(&blocked), "{line}");
                drop(take(&lock_on(&TestProvider::new(), "quick")).await);
                assert_eq!(log.lines_with("blocked the thread"), 1);
            });
        },
    );
}

#[test]
fn a_provider_that_blocks_delays_neither_timeouts_nor_the_news_of_a_loss() {
    in_own_process(
        "custom_providers::misbehaving::\
         a_provider_that_blocks_delays_neither_timeouts_nor_the_news_of_a_loss",
        &[],
        || {
            run(async {
                let innocent = TestProvider::new().with_lease(LEASE);
                let lock = lock_on(&innocent, "innocent");
                let guard = take(&lock).await;
                let start = Instant::now();
                let blocks = Double::new(Fault::Blocks(1_500)).lock("blocks");
                let blocked = tokio::spawn(async move { take(&blocks).await });
                // The holder's own wait for a timer, a loss, and the caller of what blocks.
                let waits =
                    tokio::spawn(async move { lock.acquire_for(LEASE / 2).await.map(drop) });
                let timed_out = kind(waits.await.expect("no panic"));
                assert_eq!(timed_out, LockErrorKind::TimedOut);
                let took = start.elapsed();
                assert!(
                    took < LEASE / 2 + Duration::from_millis(50),
                    "after {took:?}"
                );
                guard.lost().await;
                let took = start.elapsed();
                assert!(took < LEASE + Duration::from_millis(50), "after {took:?}");
                drop(blocked.await.expect("no panic"));
            });
        },
    );
}
