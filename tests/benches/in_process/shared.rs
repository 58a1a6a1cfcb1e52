//! The reader–writer locks and semaphores that compete, each as a reader or as one who takes a
//! permit uses it.

use std::future::Future;

use lock_runtime::{DistributedRwLock, DistributedSemaphore, LockError, distributed_lock};

use crate::TASKS;
use crate::locks::Lock;

/// As many as tasks, so that nobody waits.
const PERMITS: u32 = TASKS as u32;

#[derive(Default)]
pub(crate) struct PlainRead(tokio::sync::RwLock<()>);

impl Lock for PlainRead {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.0.read().await;
        section.await;
    }
}

pub(crate) struct Prepared(DistributedRwLock);

impl Prepared {
    pub(crate) fn new() -> Self {
        Self(DistributedRwLock::new("prices:7654321"))
    }
}

impl Lock for Prepared {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.0.read().await.expect("nothing can fail in process");
        section.await;
    }
}

pub(crate) struct Reader;

impl Lock for Reader {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        #[distributed_lock(name = "prices:1234567", mode = "read", timeout = "1m")]
        async fn locked(section: impl Future<Output = ()> + Send) -> Result<(), LockError> {
            section.await;
            Ok(())
        }
        locked(section).await.expect("nothing can fail in process");
    }
}

pub(crate) struct PlainSemaphore(tokio::sync::Semaphore);

impl PlainSemaphore {
    pub(crate) fn new() -> Self {
        Self(tokio::sync::Semaphore::new(PERMITS as usize))
    }
}

impl Lock for PlainSemaphore {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _permit = self.0.acquire().await.expect("nobody closes it");
        section.await;
    }
}

pub(crate) struct PreparedPermit(DistributedSemaphore);

impl PreparedPermit {
    pub(crate) fn new() -> Self {
        Self(DistributedSemaphore::new("partner:7654321", PERMITS))
    }
}

impl Lock for PreparedPermit {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _permit = self.0.acquire().await.expect("nothing can fail in process");
        section.await;
    }
}

pub(crate) struct TakesPermit;

impl Lock for TakesPermit {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        #[distributed_lock(name = "partner:1234567", permits = PERMITS, timeout = "1m")]
        async fn locked(section: impl Future<Output = ()> + Send) -> Result<(), LockError> {
            section.await;
            Ok(())
        }
        locked(section).await.expect("nothing can fail in process");
    }
}
