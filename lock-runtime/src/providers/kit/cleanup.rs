//! Taking back, in the background, what requests may have done whose outcome is not known.

use super::backoff::Pauses;
use crate::clock::Timestamp;

/// What one attempt to take something back has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Nothing is left, or there is nobody to ask any more.
    Done,
    /// It is worth another attempt after a pause.
    Failed,
    /// It is worth another attempt at once: that waits for a connection by itself.
    Interrupted,
}

/// Tries again and again, with these pauses between, until it is done, or until what is to be taken
/// back ends by itself.
pub(crate) async fn repeat<F: Future<Output = Attempt>>(
    mut pauses: Pauses,
    until: Timestamp,
    mut attempt: impl FnMut() -> F,
) {
    loop {
        match attempt().await {
            Attempt::Done => return,
            Attempt::Failed | Attempt::Interrupted if until.has_passed() => return,
            Attempt::Failed => tokio::time::sleep(pauses.advance().min(until.remaining())).await,
            Attempt::Interrupted => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_ends_when_it_is_done_or_when_its_time_is_over() {
        let pauses = Pauses::new(Duration::from_millis(1), Duration::from_millis(4));
        let mut answers = vec![Attempt::Done, Attempt::Failed, Attempt::Interrupted];
        let next = || std::future::ready(answers.pop().expect("no attempt after the last"));
        repeat(pauses, Timestamp::FAR_FUTURE, next).await;
        assert!(answers.is_empty());
        let until = Timestamp::now() + Duration::from_millis(20);
        repeat(pauses, until, || std::future::ready(Attempt::Failed)).await;
        assert!(until.has_passed());
    }
}
