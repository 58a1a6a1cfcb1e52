//! Owners that this process has left on a server and is taking back: nobody holds a lock by them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use once_cell::sync::Lazy;

/// The owners of all providers together, since they are unique, and how often each is named. What
/// another provider of this process has left is not another process's lock either.
static OWNERS: Lazy<Mutex<HashMap<String, usize>>> = Lazy::new(Mutex::default);

/// Owners that nobody is any more, until this is dropped.
pub(super) struct Residue(Vec<String>);

impl Residue {
    pub(super) fn new<'a>(owners: impl IntoIterator<Item = &'a String>) -> Self {
        let owners: Vec<_> = owners.into_iter().cloned().collect();
        let mut all = lock();
        for owner in &owners {
            *all.entry(owner.clone()).or_default() += 1;
        }
        drop(all);
        Self(owners)
    }

    /// Says whether this owner, which the server says holds a lock, is nobody any more.
    pub(super) fn has(owner: &str) -> bool {
        lock().contains_key(owner)
    }
}

impl Drop for Residue {
    fn drop(&mut self) {
        let mut all = lock();
        for owner in &self.0 {
            if let Some(count) = all.get_mut(owner) {
                *count -= 1;
                if *count == 0 {
                    all.remove(owner);
                }
            }
        }
    }
}

fn lock() -> MutexGuard<'static, HashMap<String, usize>> {
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}
