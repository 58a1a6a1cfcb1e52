//! Providers from outside the crate: wrappers, and providers that misbehave.

mod double;
mod misbehaving;
mod wrappers;

use std::sync::Arc;

use lock_runtime::testing::TestProvider;
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, Grant, InProcessProvider, LockError,
    LockErrorKind, LockProvider, Timestamp,
};

use crate::{run, shared};

/// Wraps a provider and forwards only what it must.
struct Thin<P>(P);

impl<P: LockProvider> LockProvider for Thin<P> {
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
        self.0.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }
}

async fn excludes(one: Arc<dyn LockProvider>, other: Arc<dyn LockProvider>) {
    let one = DistributedLock::on(one, "shared");
    let other = DistributedLock::on(other, "shared");
    for (holder, rival) in [(&one, &other), (&other, &one)] {
        let guard = holder.acquire().await.expect("the lock is free");
        assert!(
            rival
                .try_acquire()
                .await
                .expect("contention is no error")
                .is_none()
        );
        guard.release().await.expect("it was held");
    }
    // A waiter, too, is served.
    let guard = one.acquire().await.expect("the lock is free");
    let waiter = tokio::spawn(async move { other.acquire().await.map(drop) });
    tokio::task::yield_now().await;
    guard.release().await.expect("it was held");
    waiter.await.expect("no panic").expect("the lock is free");
}

#[test]
fn a_wrapper_shares_its_provider_s_locks() {
    run(async {
        let provider = InProcessProvider::new();
        excludes(shared(provider.clone()), shared(Thin(provider.clone()))).await;
        excludes(
            shared(Thin(provider.clone())),
            shared(Thin(provider.clone())),
        )
        .await;
        excludes(shared(provider.clone()), shared(Arc::new(provider))).await;
        let provider = TestProvider::new();
        excludes(shared(provider.clone()), shared(Thin(provider))).await;
    });
}

/// Panics, or answers what it must not.
enum Broken {
    PanicsAtOnce,
    PanicsWhenPolled,
    DoesNotWait,
}

impl LockProvider for Broken {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("broken")
    }

    fn acquire<'a>(&'a self, _: &'a AcquireRequest) -> BoxFuture<'a, Result<Grant, LockError>> {
        assert!(!matches!(self, Self::PanicsAtOnce), "on purpose");
        Box::pin(async {
            assert!(!matches!(self, Self::PanicsWhenPolled), "on purpose");
            Err(LockErrorKind::Contended.into())
        })
    }

    fn release<'a>(&'a self, _: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async { panic!("nothing is ever granted") })
    }
}

#[test]
fn a_provider_that_panics_is_unavailable() {
    run(async {
        let once = DistributedLock::on(shared(Broken::PanicsAtOnce), "panics");
        let polled = DistributedLock::on(shared(Broken::PanicsWhenPolled), "panics");
        for lock in [&once, &polled, &once, &polled] {
            let error = lock.acquire().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
            assert!(error.to_string().contains("panicked"), "{error}");
        }
    });
}

#[test]
fn a_provider_that_does_not_wait_makes_no_endless_loop() {
    run(async {
        let lock = DistributedLock::on(shared(Broken::DoesNotWait), "impatient");
        let error = lock.acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
    });
}
