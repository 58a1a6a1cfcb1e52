//! A provider's call: what it keeps waiting is said, and a panic in it is its own failure.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::telemetry::spans;

/// A poll that takes this long keeps every other lock's renewal waiting.
const BLOCKING: Duration = Duration::from_millis(100);
/// After this time a call without an answer is worth a line in the log.
pub(crate) const SLOW: Duration = Duration::from_secs(10);

/// The code of a provider panicked. The panic hook has said it already.
pub(crate) struct Panicked;

impl From<Panicked> for LockError {
    fn from(_: Panicked) -> Self {
        LockError::new(LockErrorKind::ProviderUnavailable).with_detail("the provider panicked")
    }
}

/// Polls a call to its end.
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

/// The same; warns of each poll that blocks the background thread.
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

/// Runs what a provider answers without waiting.
pub(crate) fn caught_now<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Panicked)
}

/// What a provider may say about an acquisition. The other kinds are the library's own: they would
/// tell the caller what nobody knows.
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

/// What a provider may say about a grant.
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
