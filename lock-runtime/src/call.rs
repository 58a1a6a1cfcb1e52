//! Polls the calls of providers: warns of one that blocks, and catches a panic.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::telemetry::spans;

/// A poll that takes this long is logged, since all renewals wait for it, or a caller's thread does.
const BLOCKING: Duration = Duration::from_millis(100);
/// A call that has no answer after this time is logged.
pub(crate) const SLOW: Duration = Duration::from_secs(10);

/// The error of a provider whose code panicked. The panic hook has reported the panic already.
pub(crate) struct Panicked;

impl From<Panicked> for LockError {
    fn from(_: Panicked) -> Self {
        LockError::new(LockErrorKind::ProviderUnavailable).with_detail("the provider panicked")
    }
}

/// Polls a call to its end, and catches a panic in it.
pub(crate) async fn caught<T>(call: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut call = pin!(call);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        },
    )
    .await
}

/// Does the same as [`caught`], and warns of each poll that blocks its thread.
pub(crate) async fn measured<T>(
    provider: &'static str,
    operation: &'static str,
    call: impl Future<Output = T>,
) -> Result<T, Panicked> {
    let mut call = pin!(caught(call));
    poll_fn(|context| {
        let began = Timestamp::roughly();
        let polled = call.as_mut().poll(context);
        let took = Timestamp::roughly().since(began);
        if took >= BLOCKING {
            spans::blocked(provider, operation, took);
        }
        polled
    })
    .await
}

/// Runs a method of a provider that is not async, and catches a panic in it.
pub(crate) fn caught_now<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Panicked)
}

/// Returns the error if it is one that a provider may answer to an acquisition. Any other one
/// becomes [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable): its kind states what only
/// the library can know.
pub(crate) fn of_acquisition(error: LockError, may_refuse: bool) -> LockError {
    match error.kind() {
        LockErrorKind::ProviderUnavailable
        | LockErrorKind::Unsupported
        | LockErrorKind::InvalidName
        | LockErrorKind::InvalidConfig => error,
        LockErrorKind::Contended if may_refuse => error,
        _ => misplaced(error),
    }
}

/// Returns the error if it is one that a provider may answer about a grant. Any other one becomes
/// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable).
pub(crate) fn of_grant(error: LockError) -> LockError {
    match error.kind() {
        LockErrorKind::ProviderUnavailable
        | LockErrorKind::Unsupported
        | LockErrorKind::InvalidConfig
        | LockErrorKind::Lost => error,
        _ => misplaced(error),
    }
}

fn misplaced(error: LockError) -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the provider answered what no provider can know")
        .with_source(error)
}
