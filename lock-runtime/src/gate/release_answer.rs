//! The provider's answer to a release, on its way to the caller that waits for it, or to the log.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::LockError;
use crate::telemetry::spans;

/// The receiving side: resolves when a release is answered, to `None` if no answer can come.
///
/// If it is dropped before the answer was read, a failure is logged, whether it comes before or
/// after that.
pub(crate) struct Answer(oneshot::Receiver<Result<(), LockError>>);

/// The sending side of an [`Answer`].
pub(super) struct Answers(oneshot::Sender<Result<(), LockError>>);

pub(super) fn answer() -> (Answers, Answer) {
    let (sender, receiver) = oneshot::channel();
    (Answers(sender), Answer(receiver))
}

impl Answers {
    /// Sends the answer, or logs a failure for which no caller waits.
    pub(super) fn give(self, result: Result<(), LockError>) {
        if let Err(Err(error)) = self.0.send(result) {
            spans::release_failed(&error);
        }
    }
}

impl Future for Answer {
    type Output = Option<Result<(), LockError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.close();
        if let Ok(Err(error)) = self.0.try_recv() {
            spans::release_failed(&error);
        }
    }
}
