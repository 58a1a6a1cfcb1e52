//! Permits that are taken, so that the last one stands for a mutex.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_runtime::{DistributedSemaphore, LockErrorKind, LockName, LockProvider, SemaphorePermit};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

/// Holds so many of all permits, of each name that it was told.
pub(crate) struct Filler {
    provider: Arc<dyn LockProvider>,
    limit: u32,
    take: u32,
    taken: Mutex<HashMap<LockName, Option<SemaphorePermit>>>,
}

impl Filler {
    pub(crate) fn new(provider: Arc<dyn LockProvider>, limit: u32, take: u32) -> Self {
        Self {
            provider,
            limit,
            take,
            taken: Mutex::default(),
        }
    }

    /// Takes the permits of this name, once.
    pub(crate) fn fill(&self, name: &LockName, bound: Duration) {
        let mut taken = self.taken.lock().expect("no panic");
        if taken.contains_key(name) {
            return;
        }
        let all = DistributedSemaphore::on(self.provider.clone(), name.clone(), self.limit);
        let taking = all.acquire_many_for(self.take, bound);
        let answer = block_in_place(|| Handle::current().block_on(taking));
        let held = match answer {
            Ok(permits) => Some(permits),
            // Nobody else gets one either.
            Err(error) if error.kind() == LockErrorKind::InvalidName => None,
            Err(error) => panic!("{} of {} of {name:?}: {error}", self.take, self.limit),
        };
        taken.insert(name.clone(), held);
    }
}
