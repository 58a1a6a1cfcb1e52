//! The interface of every contender.

use std::future::Future;
use std::time::Duration;

use lock_runtime::DistributedLock;

/// The lease of every contender: this library's default.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// One lock, as one task uses it.
pub(crate) trait Lock: Send + 'static {
    /// Acquires it, however long that takes, runs the section, and releases it.
    fn with(&mut self, section: impl Future<Output = ()> + Send)
    -> impl Future<Output = ()> + Send;
}

impl Lock for DistributedLock {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let guard = self.acquire().await.expect("the server answers");
        section.await;
        guard.release().await.expect("it was held");
    }
}
