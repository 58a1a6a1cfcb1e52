//! What a provider goes by whose locks are held by sessions.

use std::time::Duration;

/// A process that lives says so within this time, however busy its machine is.
const SHORTEST_CLAIM: Duration = Duration::from_secs(2);

/// Settings that have been checked. `T` says how to connect, and what else is the server's own.
pub(crate) struct Settings<T> {
    pub(crate) target: T,
    /// The hosts, as errors name them.
    pub(crate) server_name: String,
    pub(crate) key_prefix: String,
    pub(crate) lease: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    /// How many sessions stand in the server's queues at most.
    pub(crate) waiting_sessions: usize,
    /// By default a part of what the server has.
    pub(crate) max_sessions: Option<usize>,
    /// By default a part of what the server has.
    pub(crate) max_locks: Option<usize>,
}

impl<T> Settings<T> {
    /// Returns how long a request may take that must not take longer than a part of a lease.
    pub(super) fn patience(&self, lease: Duration) -> Duration {
        self.response_timeout.min(lease / 4)
    }

    /// Returns how long the server keeps a session that has just been granted what it waited for,
    /// until the session shows that it lives.
    pub(super) fn claim_within(&self, lease: Duration) -> Duration {
        lease.min(self.response_timeout.max(SHORTEST_CLAIM))
    }
}
