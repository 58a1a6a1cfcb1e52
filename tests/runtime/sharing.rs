//! Tasks that only try share the answer to the call under way, also when another call takes its
//! place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_runtime::testing::TestProvider;
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, Grant, LockError, LockErrorKind,
    LockProvider, Timestamp,
};
use lock_tests::poll_once;
use tokio::sync::Notify;

use crate::run;

const LEASE: Duration = Duration::from_secs(1);
const LONGER: Duration = Duration::from_millis(1_100);

/// A provider that refuses the longer lease when it is told to. Of the other lease it says that
/// somebody holds the lock.
struct Picky {
    inner: TestProvider,
    granted: AtomicBool,
    asked: Notify,
    refuses: Notify,
}

impl LockProvider for Picky {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("picky")
            .with_lease(LEASE)
            .with_contention_reports()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            if !self.granted.swap(true, Ordering::Relaxed) {
                return self.inner.acquire(request).await;
            }
            if request.lease() == LONGER {
                self.asked.notify_one();
                self.refuses.notified().await;
                return Err(LockErrorKind::InvalidConfig.into());
            }
            request.report_contention();
            request.abandoned().await;
            Err(LockErrorKind::Contended.into())
        })
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.inner.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.inner.release(grant)
    }
}

#[test]
fn who_tries_is_answered_by_the_call_that_takes_the_place_of_another() {
    run(async {
        let provider = Arc::new(Picky {
            inner: TestProvider::new(),
            granted: AtomicBool::new(false),
            asked: Notify::new(),
            refuses: Notify::new(),
        });
        let lock = DistributedLock::on(provider.clone(), "picky");
        let longer = lock.clone().lease(LONGER);
        let guard = lock.acquire().await.expect("the lock is free");
        // The call for the first asks for what serves both.
        let mut both = [Box::pin(lock.acquire()), Box::pin(longer.acquire())];
        for waiting in &mut both {
            assert!(poll_once(waiting.as_mut()).await.is_none());
        }
        guard.release().await.expect("it was held");
        provider.asked.notified().await;
        let mut tries = Box::pin(lock.try_acquire());
        assert!(poll_once(tries.as_mut()).await.is_none(), "nobody can tell");
        provider.refuses.notify_one();
        let answer = tokio::time::timeout(Duration::from_secs(1), tries).await;
        let answer = answer.expect("the next call says that somebody holds it");
        assert!(answer.expect("no error").is_none());
    });
}
