//! Until when a request that does not wait must have its answer.

use std::time::Duration;

use super::fault::unanswered;
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::AcquireRequest;

/// The time that an acquisition has for what the server answers at once. One that waits has no end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    by: Option<Timestamp>,
    limit: Duration,
}

impl Deadline {
    /// Counts from when the first request was sent, or is about to be.
    pub(crate) fn new(request: &AcquireRequest, began: Timestamp, limit: Duration) -> Self {
        Self {
            by: (!request.waits()).then_some(began + limit),
            limit,
        }
    }

    /// Returns the end of the time; `None` for a request that waits.
    pub(crate) fn end(self) -> Option<Timestamp> {
        self.by
    }

    /// Waits for an answer that comes in time.
    ///
    /// # Errors
    ///
    /// [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable) if no answer comes in time.
    pub(crate) async fn keep<T>(self, answer: impl Future<Output = T>) -> Result<T, LockError> {
        match self.by {
            Some(by) => tokio::time::timeout(by.remaining(), answer)
                .await
                .map_err(|_| unanswered(self.limit)),
            None => Ok(answer.await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_request_that_does_not_wait_has_a_deadline() {
        let limit = Duration::from_millis(10);
        for waits in [false, true] {
            let (request, _) = AcquireRequest::new("name", limit, waits).unwrap();
            let deadline = Deadline::new(&request, Timestamp::now(), limit);
            let answer = deadline.keep(tokio::time::sleep(limit * 4)).await;
            assert_eq!(answer.is_ok(), waits);
            assert!(deadline.keep(std::future::ready(())).await.is_ok());
        }
    }
}
