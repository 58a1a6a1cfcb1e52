//! Reaching a server that may grant locks: how long an acquisition puts up with one that does not.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::connection_manager::ConnectionManager;
use crate::LockError;
use crate::future::select;
use crate::provider::AcquireRequest;
use crate::providers::kit::backoff::{doubled, jittered};
use crate::providers::kit::error::unavailable;
use crate::providers::kit::outage::Outage;

/// The pauses after an answer of no use, other than the first: doubled from one to the other.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What an acquisition has seen of the server.
pub(super) struct Reach<'a> {
    manager: &'a Arc<ConnectionManager>,
    request: &'a AcquireRequest,
    outage: Outage,
    /// Answers in a row that were of no use.
    useless: u32,
}

impl<'a> Reach<'a> {
    pub(super) fn new(manager: &'a Arc<ConnectionManager>, request: &'a AcquireRequest) -> Self {
        Self {
            manager,
            request,
            outage: Outage::new(manager.settings.failover_timeout),
            useless: 0,
        }
    }

    /// Says whether to put up with an error.
    pub(super) fn tolerates(&mut self, error: &LockError) -> bool {
        self.outage.tolerates(self.request, error)
    }

    /// Takes note that the server has answered.
    pub(super) fn answered(&mut self) {
        self.useless = 0;
        self.outage.is_over(self.request);
    }

    /// Waits before the next request, unless the last one is the first in a row that failed.
    pub(super) async fn pause(&mut self) {
        self.useless = self.useless.saturating_add(1);
        if self.useless > 1 {
            let pause = doubled(SHORTEST_PAUSE, self.useless - 2, LONGEST_PAUSE);
            let pausing = tokio::time::sleep(jittered(pause));
            select(self.request.abandoned(), pausing).await;
        }
    }

    /// Waits for a connection to a server that may grant locks.
    ///
    /// # Errors
    ///
    /// Those of the next attempt to connect; that the server has restarted, if the request does not
    /// wait.
    pub(super) async fn connection(&mut self) -> Result<Arc<Connection>, LockError> {
        if !self.outage.has_begun() && self.manager.current().is_none() {
            // An attempt may fail long after a caller's timeout, which is not to be contention.
            self.outage.note(self.request, &no_connection());
        }
        loop {
            let connection = self.manager.connection().await?;
            let Some(left) = connection.grants_after() else {
                return Ok(connection);
            };
            let error = restarted(left);
            self.outage.note(self.request, &error);
            if !self.request.waits() {
                return Err(error);
            }
            select(connection.ended(), tokio::time::sleep(left)).await;
            // The server was there all the time.
            self.outage.begin_again();
        }
    }
}

fn no_connection() -> LockError {
    unavailable("there is no connection to the server")
}

fn restarted(left: Duration) -> LockError {
    unavailable(format!(
        "the server has started less than `restart_delay` ago, and grants no lock for another \
         {left:.0?}"
    ))
}
