//! Locks that need no client of their own.

use std::future::Future;
use std::sync::Arc;

use lock_runtime::{DistributedLock, LockMode, LockProvider};
use lock_tests::AnyLock;
use rustix::fs::{FlockOperation, flock};

use crate::lock::Lock;

/// Makes a lock of this library, on any provider.
pub(crate) fn ours(provider: &Arc<dyn LockProvider>, number: u64) -> DistributedLock {
    DistributedLock::on(Arc::clone(provider), format!("bench:{number}"))
}

/// Makes a lock of this library, for what this mode wants of it.
pub(crate) fn of_mode(mode: LockMode, provider: &Arc<dyn LockProvider>, number: u64) -> AnyLock {
    AnyLock::on(mode, Arc::clone(provider), format!("bench:{number}"))
}

impl Lock for AnyLock {
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
