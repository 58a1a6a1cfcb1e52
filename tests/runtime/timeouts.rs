//! A timeout is a bound. It says that somebody holds the lock only where a holder was seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, Grant, LockError, LockErrorKind,
    LockProvider, Timestamp, distributed_lock,
};
use lock_tests::poll_once;

use crate::{BOUND, lock_on, nothing_held, run, shared};

const UNAVAILABLE: LockErrorKind = LockErrorKind::ProviderUnavailable;
const TIMEOUT: Duration = Duration::from_millis(120);

fn kind<T>(result: Result<T, LockError>) -> LockErrorKind {
    result.map(drop).unwrap_err().kind()
}

/// Measures how late the call comes back, at its best, since machines that test are busy.
async fn late<F: Future>(timeout: Duration, call: impl Fn() -> F) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        call().await;
        let took = start.elapsed();
        assert!(took >= timeout, "after {took:?}");
        best = best.min(took - timeout);
    }
    best
}

#[distributed_lock(name = "skips", provider = locks, timeout = "120ms", on_unavailable = "skip")]
async fn skips(locks: &Arc<dyn LockProvider>) -> Result<Option<()>, LockError> {
    Ok(Some(()))
}

#[test]
fn a_server_that_hangs_is_no_holder() {
    run(async {
        let provider = TestProvider::new();
        provider.freeze(true);
        let lock = lock_on(&provider, "hangs");
        let bounded = late(TIMEOUT, || async {
            assert_eq!(kind(lock.acquire_for(TIMEOUT).await), UNAVAILABLE);
        });
        assert!(bounded.await < Duration::from_millis(50));
        assert_eq!(kind(lock.try_acquire_for(TIMEOUT).await), UNAVAILABLE);
        assert_eq!(kind(lock.try_run(async {}).await), UNAVAILABLE);
        assert_eq!(kind(skips(&shared(provider.clone())).await), UNAVAILABLE);
        provider.freeze(false);
        drop(lock.acquire().await.expect("nothing is left behind"));
        nothing_held(&provider).await;
    });
}

#[test]
fn a_call_that_has_no_answer_is_no_holder_for_those_behind_it() {
    run(async {
        let provider = TestProvider::new();
        provider.freeze(true);
        let lock = lock_on(&provider, "behind");
        let mut first = Box::pin(lock.acquire());
        assert!(poll_once(first.as_mut()).await.is_none());
        // Behind it, a wait, and one that only tries.
        assert_eq!(kind(lock.acquire_for(TIMEOUT).await), UNAVAILABLE);
        let mut tries = Box::pin(lock.try_acquire());
        assert!(
            poll_once(tries.as_mut()).await.is_none(),
            "it shares the answer"
        );
        // The answer is a grant for the first: now somebody is seen.
        provider.freeze(false);
        let held = first.await.expect("the lock is free");
        assert!(tries.await.expect("no error").is_none());
        drop(held);

        // The answer is a failure.
        provider.freeze(true);
        provider.fail_next(Operation::Acquire, 1);
        let mut first = Box::pin(lock.acquire());
        assert!(poll_once(first.as_mut()).await.is_none());
        let mut tries = Box::pin(lock.try_acquire());
        assert!(poll_once(tries.as_mut()).await.is_none());
        provider.freeze(false);
        assert_eq!(kind(first.await), UNAVAILABLE);
        assert_eq!(kind(tries.await), UNAVAILABLE);

        // The answer is that somebody else holds it.
        provider.freeze(true);
        provider.refuse(true);
        let mut first = Box::pin(lock.acquire());
        assert!(poll_once(first.as_mut()).await.is_none());
        let mut tries = Box::pin(lock.try_acquire());
        assert!(poll_once(tries.as_mut()).await.is_none());
        provider.freeze(false);
        assert!(tries.await.expect("no error").is_none());
        let next = lock.try_acquire().await.expect("no error");
        assert!(next.is_none(), "and at once for whoever comes then");
        assert_eq!(
            kind(lock.acquire_for(TIMEOUT).await),
            LockErrorKind::TimedOut
        );

        // The one whose call it was goes away: who tried asks for itself.
        drop(first);
        provider.refuse(false);
        drop(lock.acquire().await.expect("the lock is free"));
        nothing_held(&provider).await;
        provider.freeze(true);
        let mut first = Box::pin(lock.acquire());
        assert!(poll_once(first.as_mut()).await.is_none());
        let mut tries = Box::pin(lock.try_acquire());
        assert!(poll_once(tries.as_mut()).await.is_none());
        drop(first);
        provider.freeze(false);
        drop(tries.await.expect("no error").expect("the lock is free"));
        nothing_held(&provider).await;
    });
}

#[test]
fn a_holder_of_this_process_is_seen() {
    run(async {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "seen");
        let held = lock.acquire().await.expect("the lock is free");
        provider.freeze(true);
        assert_eq!(
            kind(lock.acquire_for(TIMEOUT).await),
            LockErrorKind::TimedOut
        );
        assert!(lock.try_acquire().await.expect("no error").is_none());
        provider.freeze(false);
        drop(held);
        nothing_held(&provider).await;
    });
}

#[test]
fn a_try_takes_one_answer_at_most() {
    run(async {
        let bound = Duration::from_millis(100);
        let inner = TestProvider::new();
        inner.freeze(true);
        let locks: Arc<dyn LockProvider> = Arc::new(Quick(inner.clone(), bound));
        let lock = DistributedLock::on(locks, "once");
        let bounded = late(bound, || async {
            assert_eq!(kind(lock.try_acquire().await), UNAVAILABLE);
        });
        assert!(bounded.await < Duration::from_millis(90));
        // Also behind one that waits and is told nothing.
        let mut first = Box::pin(lock.acquire());
        assert!(poll_once(first.as_mut()).await.is_none());
        let bounded = late(bound, || async {
            assert_eq!(kind(lock.try_acquire().await), UNAVAILABLE);
        });
        assert!(bounded.await < Duration::from_millis(90));
        inner.freeze(false);
        drop(first.await.expect("the lock is free"));
    });
}

/// A provider that says how long its answers take.
struct Quick(TestProvider, Duration);

impl LockProvider for Quick {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities().with_response_timeout(self.1)
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.0.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }
}

/// A provider that waits as the contract says, and reports nothing: it was written before that
/// could be.
struct Silent(TestProvider);

impl LockProvider for Silent {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("silent").with_lease(Duration::from_secs(30))
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            let (once, interest) =
                AcquireRequest::new(request.name(), request.lease(), request.waits())?;
            // The inner one's reports go nowhere.
            let mut asking = self.0.acquire(&once);
            let answer = tokio::select! {
                answer = &mut asking => answer,
                () = request.abandoned() => {
                    interest.abandon();
                    asking.await
                }
            };
            answer.map(|grant| Grant::new(request, grant.valid_from()))
        })
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        let _ = grant;
        let sent_at = Timestamp::now();
        Box::pin(async move { Ok(sent_at) })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            self.0.forget(grant.name().as_str());
            Ok(())
        })
    }
}

#[test]
fn a_provider_that_reports_nothing_is_asked_first() {
    run(async {
        let inner = TestProvider::new();
        let lock = DistributedLock::on(shared(Silent(inner.clone())), "silent");
        let elsewhere = lock_on(&inner.another_process(), "silent");
        let held = elsewhere.acquire().await.expect("the lock is free");
        assert_eq!(
            kind(lock.acquire_for(TIMEOUT).await),
            LockErrorKind::TimedOut
        );
        assert!(
            lock.try_acquire_for(TIMEOUT)
                .await
                .expect("no error")
                .is_none()
        );
        let waits = lock.clone();
        let waits = tokio::spawn(async move { waits.acquire_for(BOUND).await.map(drop) });
        tokio::time::sleep(TIMEOUT).await;
        held.release().await.expect("it was held");
        waits.await.expect("no panic").expect("its turn comes");
        inner.freeze(true);
        assert_eq!(kind(lock.acquire_for(TIMEOUT).await), UNAVAILABLE);
    });
}
