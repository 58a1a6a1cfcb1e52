//! Helpers that these tests share.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use lock_runtime::{DistributedLock, LockErrorKind, LockGuard};

/// Tells whether somebody holds this lock of the default provider; that may be the body that asks.
pub(crate) async fn is_held(name: &str) -> bool {
    match DistributedLock::new(name).try_acquire().await {
        Ok(guard) => guard.is_none(),
        Err(error) => error.kind() == LockErrorKind::WouldDeadlock,
    }
}

/// Takes this lock of the default provider, so that others find it held.
pub(crate) async fn hold(name: &str) -> LockGuard {
    DistributedLock::new(name)
        .acquire()
        .await
        .expect("in process")
}

/// Polls a future once.
pub(crate) fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

pub(crate) fn assert_send<T: Send>(value: T) -> T {
    value
}
