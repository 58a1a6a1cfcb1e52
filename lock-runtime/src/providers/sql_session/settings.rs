//! What a provider goes by whose locks are held by sessions.

use std::ops::Deref;
use std::time::Duration;

use crate::providers::kit::settings::Common;

/// A process that lives says so within this time, however busy its machine is.
const SHORTEST_CLAIM: Duration = Duration::from_secs(2);

/// Settings that have been checked. `T` says how to connect, and what else is the server's own.
pub(crate) struct Settings<T> {
    pub(crate) target: T,
    /// The hosts, as errors name them.
    pub(crate) server_name: String,
    pub(crate) common: Common,
    /// How many sessions stand in the server's queues at most.
    pub(crate) waiting_sessions: usize,
    /// By default a part of what the server has.
    pub(crate) max_sessions: Option<usize>,
    /// By default a part of what the server has.
    pub(crate) max_locks: Option<usize>,
}

impl<T> Settings<T> {
    /// Returns how long the server keeps a session that has just been granted what it waited for,
    /// until the session shows that it lives.
    pub(super) fn claim_within(&self, lease: Duration) -> Duration {
        lease.min(self.response_timeout.max(SHORTEST_CLAIM))
    }
}

/// The settings that every server has are read as if they stood here.
impl<T> Deref for Settings<T> {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}
