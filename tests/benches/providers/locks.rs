//! What every contender can do.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{DistributedLock, LockProvider};
use rustix::fs::{FlockOperation, flock};

/// As this library's default.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// One lock, as one task uses it.
pub(crate) trait Lock: Send + 'static {
    /// Acquires it, however long that takes, runs the section, and releases it.
    fn with(&mut self, section: impl Future<Output = ()> + Send)
    -> impl Future<Output = ()> + Send;
}

/// This library's, on any provider.
pub(crate) fn ours(provider: &Arc<dyn LockProvider>, number: u64) -> DistributedLock {
    DistributedLock::on(Arc::clone(provider), format!("bench:{number}"))
}

impl Lock for DistributedLock {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let guard = self.acquire().await.expect("the server answers");
        section.await;
        guard.release().await.expect("it was held");
    }
}

/// Opens a file and locks it, and does nothing else.
pub(crate) struct RawFile(pub(crate) String);

impl Lock for RawFile {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let path = self.0.clone();
        let locking = move || {
            let file = std::fs::File::create(path).expect("a directory of its own");
            flock(&file, FlockOperation::NonBlockingLockExclusive).expect("it is free");
            file
        };
        // File systems block.
        let file = tokio::task::spawn_blocking(locking).await.expect("done");
        section.await;
        drop(file);
    }
}
