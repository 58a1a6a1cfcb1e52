//! What every server's provider allows and assumes, where nobody says otherwise.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::LockError;
use crate::providers::invalid;

pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(30);
pub(crate) const LEASES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
const LONGEST_DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SHORTEST_DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The lease that was set, if it can be kept, or else the default.
pub(crate) fn lease(set: Option<Duration>) -> Result<Duration, LockError> {
    let lease = set.unwrap_or(DEFAULT_LEASE);
    if !LEASES.contains(&lease) {
        return Err(invalid(format!(
            "expected a lease of 100 ms to 24 h, got {lease:?}"
        )));
    }
    Ok(lease)
}

pub(crate) fn default_connect_timeout(lease: Duration) -> Duration {
    (lease / 3).clamp(
        SHORTEST_DEFAULT_CONNECT_TIMEOUT,
        LONGEST_DEFAULT_CONNECT_TIMEOUT,
    )
}

/// How a peer that is gone without a word is noticed before the next renewal is due.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) struct DeadPeers {
    /// For how long what was sent may stay unconfirmed.
    pub(crate) patience: Duration,
    /// How long a connection is quiet before it is probed, and the probes are apart.
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    pub(crate) probes: u32,
}

#[cfg(any(feature = "postgres", feature = "redis"))]
impl DeadPeers {
    pub(crate) fn noticed_within(lease: Duration) -> Self {
        // Systems count whole seconds.
        const SHORTEST: Duration = Duration::from_secs(1);
        let patience = (lease / 4).min(Duration::from_secs(10));
        Self {
            patience,
            idle: (patience / 2).max(SHORTEST),
            interval: (patience / 4).max(SHORTEST),
            probes: 2,
        }
    }
}
