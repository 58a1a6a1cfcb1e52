//! How long an acquisition puts up with a server that is out of reach or not to be asked yet.

use std::time::Duration;

use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::AcquireRequest;

/// Trouble with the server, and since when.
pub(crate) struct Outage {
    /// How long a request that waits puts up with it.
    limit: Duration,
    since: Option<Timestamp>,
}

impl Outage {
    /// Returns one that has not begun.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    /// Says whether to put up with an error: only a request that waits does, and only for so long.
    pub(crate) fn tolerates(&mut self, request: &AcquireRequest, error: &LockError) -> bool {
        self.since.get_or_insert_with(Timestamp::now);
        let tolerates = request.waits() && error.is_retryable() && !self.ends_at().has_passed();
        if tolerates {
            self.note(request, error);
        }
        tolerates
    }

    /// Tells whoever wants the lock of the trouble; with the first error it begins.
    pub(crate) fn note(&mut self, request: &AcquireRequest, error: &LockError) {
        self.since.get_or_insert_with(Timestamp::now);
        request.report_trouble(Some(error.clone()));
    }

    /// Returns when a request that waits has put up with it for long enough.
    pub(crate) fn ends_at(&self) -> Timestamp {
        self.since.unwrap_or_else(Timestamp::now) + self.limit
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.since.is_some()
    }

    /// Counts it from now on: the server was there all the time.
    pub(crate) fn begin_again(&mut self) {
        self.since = Some(Timestamp::now());
    }

    /// Takes note that the server has answered.
    pub(crate) fn is_over(&mut self, request: &AcquireRequest) {
        if self.since.take().is_some() {
            request.report_trouble(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LockErrorKind;

    const MINUTE: Duration = Duration::from_secs(60);

    fn request(waits: bool) -> (AcquireRequest, crate::Interest) {
        AcquireRequest::new("name", MINUTE, waits).unwrap()
    }

    #[test]
    fn only_who_waits_puts_up_with_an_outage() {
        let gone = LockError::new(LockErrorKind::ProviderUnavailable);
        let wrong = LockError::new(LockErrorKind::InvalidConfig);
        let (waits, interest) = request(true);
        let mut outage = Outage::new(MINUTE);
        assert!(outage.tolerates(&waits, &gone) && !outage.tolerates(&waits, &wrong));
        assert!(interest.trouble().is_some());
        outage.is_over(&waits);
        assert!(interest.trouble().is_none() && !outage.has_begun());
        assert!(!Outage::new(MINUTE).tolerates(&request(false).0, &gone));
        assert!(!Outage::new(Duration::ZERO).tolerates(&waits, &gone));
    }
}
