//! `SlotTable`: a sharded table of the values that are in use, only as large as they need.
//!
//! The table refers to its values weakly. The drop of the last reference to a value removes its
//! entry. Meanwhile another thread may make a new value for the key. That does no harm, since a
//! value without references is worth nothing.

use std::array;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

const SHARDS: usize = 32;
/// A shard of more entries than this gives memory back when most of it is unused.
const KEPT_CAPACITY: usize = 64;

struct Entry<T> {
    hash: u64,
    value: Weak<T>,
}

/// A table of the values that are in use, by key.
pub(crate) struct SlotTable<T> {
    hasher: RandomState,
    shards: [Mutex<HashTable<Entry<T>>>; SHARDS],
}

impl<T> Default for SlotTable<T> {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: array::from_fn(|_| Mutex::default()),
        }
    }
}

impl<T> SlotTable<T> {
    fn shard(&self, hash: u64) -> MutexGuard<'_, HashTable<Entry<T>>> {
        // The low bits choose the shard. Inside it, hashbrown tells entries apart by the high ones.
        lock(&self.shards[hash as usize % SHARDS])
    }

    /// Finds the value of this key, or adds the one that `make` returns for the key's hash.
    ///
    /// # Errors
    ///
    /// As `make`, which is called only where there is no value.
    pub(crate) fn find_or_add<E>(
        &self,
        key: &impl Hash,
        has_key: impl Fn(&T) -> bool,
        make: impl FnOnce(u64) -> Result<Arc<T>, E>,
    ) -> Result<Arc<T>, E> {
        let hash = self.hasher.hash_one(key);
        let mut found = None;
        // Declared before the shard's lock and so dropped after it, since the drop of a last
        // reference takes that lock.
        let mut others = Vec::new();
        let mut shard = self.shard(hash);
        shard.find(hash, |entry| {
            if entry.hash != hash {
                return false;
            }
            let Some(value) = entry.value.upgrade() else {
                // The value is being dropped, so it does not count. All that its last holder did
                // must come before what the next holder does.
                fence(Ordering::Acquire);
                return false;
            };
            let same = has_key(&value);
            if same {
                found = Some(value);
            } else {
                others.push(value);
            }
            same
        });
        if let Some(value) = found {
            return Ok(value);
        }
        let made = make(hash)?;
        let value = Arc::downgrade(&made);
        shard.insert_unique(hash, Entry { hash, value }, |entry| entry.hash);
        Ok(made)
    }

    /// Removes the entry of a value that is being dropped. Its key has this hash.
    pub(crate) fn forget(&self, value: &T, hash: u64) {
        let mut shard = self.shard(hash);
        let entry = shard.find_entry(hash, |entry| std::ptr::eq(entry.value.as_ptr(), value));
        if let Ok(entry) = entry {
            entry.remove();
        }
        if shard.capacity() > KEPT_CAPACITY && shard.len() < shard.capacity() / 8 {
            let kept = (shard.len() * 2).max(KEPT_CAPACITY);
            shard.shrink_to(kept, |entry| entry.hash);
        }
    }

    /// Returns every value.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let mut values = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            values.extend(shard.iter().filter_map(|entry| entry.value.upgrade()));
        }
        values
    }

    /// Returns the number of entries, including those of values that are being dropped.
    #[cfg(feature = "testing")]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

fn lock<T>(shard: &Mutex<HashTable<Entry<T>>>) -> MutexGuard<'_, HashTable<Entry<T>>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
