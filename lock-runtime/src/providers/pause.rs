//! The names that PostgreSQL still uses for what is in `kit/backoff.rs`.

use std::time::Duration;

use super::kit::backoff::ConnectBackoff;
pub(crate) use super::kit::backoff::jittered;
use crate::LockError;

pub(crate) type Attempts = ConnectBackoff;

impl ConnectBackoff {
    pub(crate) fn next(&self) -> Result<Duration, LockError> {
        self.delay()
    }

    pub(crate) fn are_due(&self) -> bool {
        self.is_due()
    }

    pub(crate) fn made<T>(&mut self, outcome: &Result<T, LockError>) {
        self.record(outcome);
    }
}
