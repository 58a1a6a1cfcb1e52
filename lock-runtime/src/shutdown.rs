//! `shutdown`: gives everything back before the process ends.

use std::time::Duration;

use crate::{background, gate};

/// How long the providers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Releases every lock that this process holds on a provider with leases or sessions, stops their
/// renewal, and fails whoever waits for one with
/// [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable); waits until the providers
/// have answered, at most ten seconds.
///
/// Call it last in `main`, or when the process was told to stop: a process that just exits leaves
/// its locks to their leases. Bodies that still run are dropped as if their lock had been lost,
/// which it is. Locks that are asked for afterwards are acquired as ever, so stop what asks for
/// them first. Locks of [`InProcessProvider`](crate::InProcessProvider) end with the process and are left alone.
///
/// # Cancel safety
///
/// If dropped, the releases still happen, and nobody waits for them.
pub async fn shutdown() {
    for slot in gate::all() {
        slot.shut_down();
    }
    if background::within(PATIENCE, background::drained())
        .await
        .is_none()
    {
        tracing::warn!("some locks were not confirmed as released; their leases will end them");
    }
}
