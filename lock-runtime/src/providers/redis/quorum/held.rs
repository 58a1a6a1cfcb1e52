//! What a grant keeps of the votes that it stands for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::connection::Connection;
use crate::clock::Timestamp;

/// The owner in whose name the servers have voted, and where requests may still be on their way.
pub(super) struct Held {
    pub(super) owner: String,
    sent: Mutex<Vec<Sent>>,
}

/// What was sent to one server last, and whether requests on earlier connections may still come.
#[derive(Clone, Default)]
pub(super) struct Sent {
    last: Option<(Timestamp, Arc<Connection>)>,
    stray_until: Option<Timestamp>,
}

impl Sent {
    /// Notes a request that may set the key, for a lease.
    pub(super) fn note(&mut self, at: Timestamp, connection: &Arc<Connection>, lease: Duration) {
        if let Some((before, last)) = &self.last
            && !Arc::ptr_eq(last, connection)
        {
            self.stray_until = self.stray_until.max(Some(*before + lease));
        }
        self.last = Some((at, Arc::clone(connection)));
    }

    pub(super) fn last(&self) -> Option<&(Timestamp, Arc<Connection>)> {
        self.last.as_ref()
    }

    /// Returns until when a request may come that a release over this connection does not follow.
    pub(super) fn stray_until(
        &self,
        connection: Option<&Arc<Connection>>,
        lease: Duration,
    ) -> Option<Timestamp> {
        let last = self
            .last
            .as_ref()
            .filter(|(_, last)| connection.is_none_or(|connection| !Arc::ptr_eq(last, connection)));
        let until = self.stray_until.max(last.map(|(at, _)| *at + lease));
        until.filter(|until| !until.has_passed())
    }
}

impl Held {
    pub(super) fn new(owner: String, sent: Vec<Sent>) -> Self {
        Self {
            owner,
            sent: Mutex::new(sent),
        }
    }

    pub(super) fn sent(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
