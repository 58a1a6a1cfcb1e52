//! The mutexes that compete.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use lock_runtime::{DistributedLock, LockError, distributed_lock};
use lockable::LockPool;

use crate::NUMBER;

/// A name as services use them.
const NAME: &str = "invoice:1234567";

/// A contender: runs a section while it holds its lock.
pub(crate) trait Lock: Send + Sync + 'static {
    fn with(&self, section: impl Future<Output = ()> + Send) -> impl Future<Output = ()> + Send;
}

#[derive(Default)]
pub(crate) struct PlainMutex(tokio::sync::Mutex<()>);

impl Lock for PlainMutex {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.0.lock().await;
        section.await;
    }
}

impl Lock for DistributedLock {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.acquire().await.expect("nothing can fail in process");
        section.await;
    }
}

pub(crate) struct FixedName;

impl Lock for FixedName {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        #[distributed_lock(name = "invoice:1234567", timeout = "1m")]
        async fn locked(section: impl Future<Output = ()> + Send) -> Result<(), LockError> {
            section.await;
            Ok(())
        }
        locked(section).await.expect("nothing can fail in process");
    }
}

pub(crate) struct NameWithPlaceholder(pub(crate) u64);

impl Lock for NameWithPlaceholder {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        #[distributed_lock(name = "invoice:{number}", timeout = "1m")]
        async fn locked(
            number: u64,
            section: impl Future<Output = ()> + Send,
        ) -> Result<(), LockError> {
            section.await;
            Ok(())
        }
        let locked = locked(self.0, section).await;
        locked.expect("nothing can fail in process");
    }
}

impl Lock for LockPool<&'static str> {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.async_lock(NAME).await;
        section.await;
    }
}

impl Lock for LockPool<String> {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let _guard = self.async_lock(format!("invoice:{NUMBER}")).await;
        section.await;
    }
}

/// The map of mutexes that people write by hand. It keeps every name that was ever used.
#[derive(Default)]
pub(crate) struct MapOfMutexes(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Lock for MapOfMutexes {
    async fn with(&self, section: impl Future<Output = ()> + Send) {
        let mutex = {
            let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(map.entry(format!("invoice:{NUMBER}")).or_default())
        };
        let _guard = mutex.lock().await;
        section.await;
    }
}
