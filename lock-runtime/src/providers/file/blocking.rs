//! File calls, which may block for a disk.

use crate::{LockError, LockErrorKind};

/// Runs file calls where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LockError> + Send + 'static,
) -> Result<T, LockError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(LockError::new(LockErrorKind::ProviderUnavailable).with_source(error))
        })
}
