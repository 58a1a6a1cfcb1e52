//! `shutdown`: releases all locks before the process ends.

use std::time::Duration;

use crate::{background, gate};

/// How long the providers may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Releases every lock that this process holds on a provider, and waits for the answers of the
/// providers, at most 10 s.
///
/// Call it last in `main`, or when the process is told to stop. A process that just exits leaves
/// its locks to their leases.
///
/// * The released locks are lost to their holders: bodies that still run are dropped.
/// * Callers that wait for a lock get
///   [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable).
/// * Locks that are asked for afterwards are acquired as before. So first stop the code that asks
///   for them.
/// * Locks of [`InProcessProvider`](crate::InProcessProvider) are left alone, since they end with
///   the process.
///
/// # Cancel safety
///
/// If the future is dropped after its first poll, the releases still happen.
///
/// # Examples
///
/// ```
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() {
///     // … serve until the process is told to stop, then stop the tasks that use locks …
///     lock_runtime::shutdown().await;
/// }
/// ```
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
