//! The table of all slots of the process: sharded, and only as large as what is in use.
//!
//! It refers to slots weakly. Whoever drops the last reference to a slot removes its entry; until
//! then somebody else may already have made a new slot for the key, which is no harm: a slot that
//! nobody refers to is held by nobody.

use std::array;
use std::hash::BuildHasher;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use once_cell::sync::Lazy;

use crate::gate::{Slot, SlotRef, Source};
use crate::{LockError, LockName};

const SHARDS: usize = 32;
/// A shard larger than this gives memory back when most of it is unused.
const KEPT_CAPACITY: usize = 64;

struct Entry {
    hash: u64,
    slot: Weak<Slot>,
}

struct Table {
    hasher: RandomState,
    shards: [Mutex<HashTable<Entry>>; SHARDS],
}

static TABLE: Lazy<Table> = Lazy::new(|| Table {
    hasher: RandomState::default(),
    shards: array::from_fn(|_| Mutex::default()),
});

impl Table {
    fn shard(&self, hash: u64) -> MutexGuard<'_, HashTable<Entry>> {
        // The low bits choose the shard, hashbrown uses the high ones and all of them.
        let shard = &self.shards[hash as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of this name in the provider's lock space, made if there is none.
///
/// # Errors
///
/// If the name is invalid, which it cannot be where there is a slot; or if the provider panics.
pub(crate) fn enter(source: &Arc<Source>, name: &LockName) -> Result<SlotRef, LockError> {
    let space = match source.ask() {
        Ok(facts) => facts.space,
        Err(error) => return Err(error.with_name(name.clone())),
    };
    let hash = TABLE.hasher.hash_one((space, name));
    let mut found = None;
    // Declared before the shard's lock and so dropped after it: the last reference takes that lock.
    let mut others = Vec::new();
    let mut shard = TABLE.shard(hash);
    shard.find(hash, |entry| {
        if entry.hash != hash {
            return false;
        }
        // A slot that is going away is none.
        let Some(slot) = entry.slot.upgrade() else {
            // What its last holder did comes before what the next one does.
            fence(Ordering::Acquire);
            return false;
        };
        let same = slot.space == space && slot.name == *name;
        if same {
            found = Some(slot);
        } else {
            others.push(slot);
        }
        same
    });
    if let Some(slot) = found {
        return Ok(SlotRef::new(slot, source));
    }
    name.validate()?;
    let slot = Arc::new(Slot::new(space, hash, name.clone(), Arc::clone(source)));
    let entry = Entry {
        hash,
        slot: Arc::downgrade(&slot),
    };
    shard.insert_unique(hash, entry, |entry| entry.hash);
    Ok(SlotRef::new(slot, source))
}

/// The slot is being dropped.
pub(crate) fn forget(slot: &Slot) {
    let mut shard = TABLE.shard(slot.hash);
    let entry = shard.find_entry(slot.hash, |entry| std::ptr::eq(entry.slot.as_ptr(), slot));
    if let Ok(entry) = entry {
        entry.remove();
    }
    if shard.capacity() > KEPT_CAPACITY && shard.len() < shard.capacity() / 8 {
        let kept = (shard.len() * 2).max(KEPT_CAPACITY);
        shard.shrink_to(kept, |entry| entry.hash);
    }
}

/// Every slot of the process.
pub(crate) fn all() -> Vec<SlotRef> {
    let mut slots = Vec::new();
    for shard in &TABLE.shards {
        let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        slots.extend(
            shard
                .iter()
                .filter_map(|entry| entry.slot.upgrade())
                .map(SlotRef::any),
        );
    }
    slots
}

/// How many entries there are, those of slots that are going away included.
#[cfg(feature = "testing")]
pub(crate) fn len() -> usize {
    let lock = |shard: &Mutex<HashTable<Entry>>| {
        shard.lock().unwrap_or_else(PoisonError::into_inner).len()
    };
    TABLE.shards.iter().map(lock).sum()
}
