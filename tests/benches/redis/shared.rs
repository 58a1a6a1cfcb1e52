//! The contenders that read, write, or take permits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use distributed_lock_core::traits::LockHandle as _;
use distributed_lock_core::traits::{DistributedReaderWriterLock as _, DistributedSemaphore as _};
use distributed_lock_redis::{RedisDistributedReaderWriterLock, RedisDistributedSemaphore};
use lock_runtime::{DistributedMultiLock, DistributedRwLock, DistributedSemaphore};
use tokio::time::sleep;

use crate::lock::Lock;

/// The permits of every semaphore.
pub(crate) const PERMITS: u32 = 5;

pub(crate) struct TokioRead(pub(crate) Arc<tokio::sync::RwLock<()>>);

impl Lock for TokioRead {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let _guard = self.0.read().await;
        section.await;
    }
}

pub(crate) struct Read(pub(crate) DistributedRwLock);

impl Lock for Read {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let guard = self.0.read().await.expect("the server answers");
        section.await;
        guard.release().await.expect("it was held");
    }
}

pub(crate) struct Write(pub(crate) DistributedRwLock);

impl Lock for Write {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let guard = self.0.write().await.expect("the server answers");
        section.await;
        guard.release().await.expect("it was held");
    }
}

pub(crate) struct Permit(pub(crate) DistributedSemaphore);

/// Three names, taken together.
pub(crate) struct Several(pub(crate) DistributedMultiLock);

impl Lock for Several {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let guard = self.0.acquire().await.expect("the server answers");
        section.await;
        guard.release().await.expect("it was held");
    }
}

impl Lock for Permit {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let permit = self.0.acquire().await.expect("the server answers");
        section.await;
        permit.release().await.expect("it was held");
    }
}

pub(crate) struct PolledRead {
    pub(crate) lock: RedisDistributedReaderWriterLock,
    pub(crate) retry: Duration,
}

impl Lock for PolledRead {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let handle = loop {
            match self
                .lock
                .try_acquire_read()
                .await
                .expect("the server answers")
            {
                Some(handle) => break handle,
                None => sleep(self.retry).await,
            }
        };
        section.await;
        handle.release().await.expect("it was held");
    }
}

pub(crate) struct PolledWrite {
    pub(crate) lock: RedisDistributedReaderWriterLock,
    pub(crate) retry: Duration,
}

impl Lock for PolledWrite {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let handle = loop {
            match self
                .lock
                .try_acquire_write()
                .await
                .expect("the server answers")
            {
                Some(handle) => break handle,
                None => sleep(self.retry).await,
            }
        };
        section.await;
        handle.release().await.expect("it was held");
    }
}

pub(crate) struct PolledPermit {
    pub(crate) semaphore: RedisDistributedSemaphore,
    pub(crate) retry: Duration,
}

impl Lock for PolledPermit {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let handle = loop {
            match self
                .semaphore
                .try_acquire()
                .await
                .expect("the server answers")
            {
                Some(handle) => break handle,
                None => sleep(self.retry).await,
            }
        };
        section.await;
        handle.release().await.expect("it was held");
    }
}
