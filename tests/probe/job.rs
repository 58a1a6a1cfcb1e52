//! A job that every replica's scheduler calls, and that one of them is to run.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockError, LockMode, LockProvider, distributed_lock};
use lock_tests::boot_nanos;

type Ran = Result<Option<u64>, LockError>;

/// Returns the moment at which it ran, if it did. With a `min_hold` of zero, the lock is free when
/// it has ended.
pub(crate) async fn job(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    mode: LockMode,
    min_hold: Duration,
) -> Ran {
    match mode {
        LockMode::Write => written(provider, name, min_hold).await,
        LockMode::Permits { limit, take } => {
            permitted(provider, name, min_hold, limit.get(), take.get()).await
        }
        _ => alone(provider, name, min_hold).await,
    }
}

#[distributed_lock(
    name = name,
    on_unavailable = "skip",
    min_hold = min_hold,
    provider = provider
)]
async fn alone(provider: &Arc<dyn LockProvider>, name: &str, min_hold: Duration) -> Ran {
    Ok(Some(boot_nanos()))
}

#[distributed_lock(
    name = name,
    mode = "write",
    on_unavailable = "skip",
    min_hold = min_hold,
    provider = provider
)]
async fn written(provider: &Arc<dyn LockProvider>, name: &str, min_hold: Duration) -> Ran {
    Ok(Some(boot_nanos()))
}

#[distributed_lock(
    name = name,
    permits = limit,
    take = take,
    on_unavailable = "skip",
    min_hold = min_hold,
    provider = provider
)]
async fn permitted(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    min_hold: Duration,
    limit: u32,
    take: u32,
) -> Ran {
    Ok(Some(boot_nanos()))
}
