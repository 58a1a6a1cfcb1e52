//! A job that every replica's scheduler calls, and that one of them is to run.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockError, LockProvider, distributed_lock};
use lock_tests::boot_nanos;

/// Returns the moment at which it ran, if it did. With a `min_hold` of zero, the lock is free when
/// it has ended.
#[distributed_lock(
    name = name,
    on_unavailable = "skip",
    min_hold = min_hold,
    provider = provider
)]
pub(crate) async fn job(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    min_hold: Duration,
) -> Result<Option<u64>, LockError> {
    Ok(Some(boot_nanos()))
}
