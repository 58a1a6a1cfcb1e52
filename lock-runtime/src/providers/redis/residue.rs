//! Owners that this process has left on a server and is taking back: nobody holds a lock by them.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use once_cell::sync::Lazy;

/// The owners of all providers together, since they are unique. What another provider of this
/// process has left is not another process's lock either.
static OWNERS: Lazy<Mutex<HashSet<String>>> = Lazy::new(Mutex::default);

/// Owners that nobody is any more, until this is dropped.
pub(super) struct Residue(Vec<String>);

impl Residue {
    pub(super) fn new(owners: &[String]) -> Self {
        let mut all = lock();
        let new = owners.iter().filter(|owner| all.insert((*owner).clone()));
        Self(new.cloned().collect())
    }

    /// Says whether this owner, which the server says holds a lock, is nobody any more.
    pub(super) fn has(owner: &str) -> bool {
        lock().contains(owner)
    }
}

impl Drop for Residue {
    fn drop(&mut self) {
        let mut all = lock();
        for owner in &self.0 {
            all.remove(owner);
        }
    }
}

fn lock() -> MutexGuard<'static, HashSet<String>> {
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}
