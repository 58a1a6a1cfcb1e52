//! What a call has seen that nobody wants any more is no answer to whoever comes later.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::testing::TestProvider;
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockError, LockErrorKind, LockMode,
    LockProvider, Timestamp,
};
use lock_tests::AnyLock;
use lock_tests::any_lock::permits;

use crate::{nothing_held, run, shared};

/// How long an answer is on its way that says that a lock is not to be had.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

struct SlowToRefuse(TestProvider);

impl LockProvider for SlowToRefuse {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            let answer = self.0.acquire(request).await;
            if answer.is_err() {
                tokio::time::sleep(ON_ITS_WAY).await;
            }
            answer
        })
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.0.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }
}

/// Somebody gives up waiting, and the holder releases while the answer to that is on its way.
async fn a_try_asks_for_itself(mode: LockMode, held: LockMode) {
    let provider = TestProvider::new();
    let elsewhere = AnyLock::on(held, shared(provider.another_process()), "stale");
    let lock = AnyLock::on(mode, Arc::new(SlowToRefuse(provider.clone())), "stale");
    let holder = elsewhere.acquire().await.unwrap();
    let error = lock
        .acquire_for(Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TimedOut, "{mode:?}: {error}");
    holder.release().await.unwrap();
    let taken = lock.try_acquire().await.unwrap();
    taken
        .unwrap_or_else(|| panic!("{mode:?} is free"))
        .release()
        .await
        .unwrap();
    nothing_held(&provider).await;
}

#[test]
fn what_an_abandoned_call_has_seen_refuses_nobody() {
    for (mode, held) in [
        (LockMode::Exclusive, LockMode::Exclusive),
        (LockMode::Write, LockMode::Write),
        (LockMode::Write, LockMode::Read),
        (LockMode::Read, LockMode::Write),
        (permits(1, 1), permits(1, 1)),
        (permits(2, 3), permits(2, 3)),
    ] {
        run(a_try_asks_for_itself(mode, held));
    }
}
