//! The provider's answer to a release, on its way to the caller that waits for it, or to the log.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::LockError;
use crate::telemetry::spans;

/// What the caller of a release waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReleaseMode {
    /// The provider's answer.
    Confirmed,
    /// The moment at which the release has been handed to the provider's connection.
    Background,
}

/// The receiving side: resolves when a release is answered, to `None` if no answer can come.
///
/// If it is dropped before the answer was read, a failure is logged, whether it comes before or
/// after that.
pub(crate) struct Answer {
    answer: oneshot::Receiver<Result<(), LockError>>,
    sent: Option<oneshot::Receiver<()>>,
}

/// The sending side of an [`Answer`].
pub(super) struct Answers {
    answer: oneshot::Sender<Result<(), LockError>>,
    sent: Option<oneshot::Sender<()>>,
}

pub(super) fn answer(mode: ReleaseMode) -> (Answers, Answer) {
    let (answers, answer) = oneshot::channel();
    let (tells, sent) = match mode {
        ReleaseMode::Confirmed => (None, None),
        ReleaseMode::Background => {
            let (tells, sent) = oneshot::channel();
            (Some(tells), Some(sent))
        }
    };
    let answers = Answers {
        answer: answers,
        sent: tells,
    };
    (answers, Answer { answer, sent })
}

impl Answers {
    /// Returns what tells the caller that the release has been handed to the connection, if the
    /// caller waits for that.
    pub(super) fn sent<T>(&mut self) -> Option<impl FnOnce(T) + use<T>> {
        let sent = self.sent.take()?;
        Some(move |_| {
            // The caller may have gone away.
            let _ = sent.send(());
        })
    }

    /// Sends the answer, or logs a failure for which no caller waits.
    pub(super) fn give(self, result: Result<(), LockError>) {
        if let Err(Err(error)) = self.answer.send(result) {
            spans::release_failed(&error);
        }
    }
}

impl Answer {
    /// Waits until the release has been handed to the connection. If the answer comes first,
    /// returns that.
    pub(crate) async fn sent(mut self) -> Option<Result<(), LockError>> {
        poll_fn(|context| {
            if let Poll::Ready(answer) = Pin::new(&mut self).poll(context) {
                return Poll::Ready(answer);
            }
            let Some(sent) = &mut self.sent else {
                return Poll::Pending;
            };
            match Pin::new(sent).poll(context) {
                Poll::Ready(Ok(())) => Poll::Ready(Some(Ok(()))),
                // The call ends without having been handed over, so its answer comes.
                Poll::Ready(Err(_)) => {
                    self.sent = None;
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

impl Future for Answer {
    type Output = Option<Result<(), LockError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(Result::ok)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(Err(error)) = self.answer.try_recv() {
            spans::release_failed(&error);
        }
    }
}
