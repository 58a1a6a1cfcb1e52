//! How long an acquisition puts up with a server that is out of reach or not to be asked yet.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::link::Link;
use crate::clock::Timestamp;
use crate::provider::AcquireRequest;
use crate::providers::pause::jittered;
use crate::race::first_of;
use crate::{LockError, LockErrorKind};

/// Trouble with the server, and since when.
pub(super) struct Outage<'a> {
    link: &'a Arc<Link>,
    request: &'a AcquireRequest,
    since: Option<Timestamp>,
    /// Answers in a row that were of no use.
    useless: u32,
}

/// Pauses after an answer of no use, other than the first: doubled from one to the other.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl<'a> Outage<'a> {
    /// There is none yet.
    pub(super) fn new(link: &'a Arc<Link>, request: &'a AcquireRequest) -> Self {
        Self {
            link,
            request,
            since: None,
            useless: 0,
        }
    }

    /// Says whether to put up with an error: only a request that waits does, and only for so long.
    pub(super) fn tolerates(&mut self, error: &LockError) -> bool {
        let since = *self.since.get_or_insert_with(Timestamp::now);
        self.request.report_trouble(Some(error.clone()));
        self.request.waits()
            && error.is_retryable()
            && !(since + self.link.settings.failover_timeout).has_passed()
    }

    /// Waits before the next request, unless the last one is the first in a row that failed.
    pub(super) async fn pause(&mut self) {
        self.useless = self.useless.saturating_add(1);
        let doubled = match self.useless {
            1 => return,
            many => SHORTEST_PAUSE * (1 << (many - 2).min(10)),
        };
        let pause = tokio::time::sleep(jittered(doubled.min(LONGEST_PAUSE)));
        first_of(self.request.abandoned(), pause).await;
    }

    /// Takes note that the server has answered.
    pub(super) fn is_over(&mut self) {
        self.useless = 0;
        if self.since.take().is_some() {
            self.request.report_trouble(None);
        }
    }

    /// Waits for a connection to a server that may grant locks.
    ///
    /// # Errors
    ///
    /// Those of the next attempt to connect; that the server has restarted, if the request does not
    /// wait.
    pub(super) async fn connection(&mut self) -> Result<Arc<Connection>, LockError> {
        if self.since.is_none() && self.link.current().is_none() {
            // An attempt may fail long after a caller's timeout, which is not to be contention.
            self.tolerates(&no_connection());
        }
        loop {
            let connection = self.link.connection().await?;
            let Some(left) = connection.grants_after() else {
                return Ok(connection);
            };
            let error = restarted(left);
            self.tolerates(&error);
            if !self.request.waits() {
                return Err(error);
            }
            first_of(connection.ended(), tokio::time::sleep(left)).await;
            // The server was there all the time.
            self.since = Some(Timestamp::now());
        }
    }
}

fn no_connection() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("there is no connection to the server")
}

fn restarted(left: Duration) -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable).with_detail(format!(
        "the server has started less than `restart_delay` ago, and grants no lock for another \
         {left:.0?}"
    ))
}
