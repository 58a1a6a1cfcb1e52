//! The table of all slots of the process: sharded, and only as large as what is in use.

use std::array;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use once_cell::sync::Lazy;
use std::hash::BuildHasher;

use crate::LockName;
use crate::gate::{Slot, SlotRef};
use crate::provider::LockProvider;

const SHARDS: usize = 32;
/// A shard larger than this gives memory back when most of it is unused.
const KEPT_CAPACITY: usize = 64;

struct Table {
    hasher: RandomState,
    shards: [Mutex<HashTable<Arc<Slot>>>; SHARDS],
}

static TABLE: Lazy<Table> = Lazy::new(|| Table {
    hasher: RandomState::default(),
    shards: array::from_fn(|_| Mutex::default()),
});

impl Table {
    fn shard(&self, hash: u64) -> MutexGuard<'_, HashTable<Arc<Slot>>> {
        // The low bits choose the shard, hashbrown uses the high ones and all of them.
        let shard = &self.shards[hash as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of this name in the provider's lock space, made if there is none.
pub(crate) fn enter(provider: &Arc<dyn LockProvider>, name: &LockName) -> SlotRef {
    let space = provider.lock_space();
    let hash = TABLE.hasher.hash_one((space, name));
    let mut shard = TABLE.shard(hash);
    let entry = shard.entry(
        hash,
        |slot| slot.hash == hash && slot.space == space && slot.name == *name,
        |slot| slot.hash,
    );
    let slot = entry
        .or_insert_with(|| Arc::new(Slot::new(space, hash, name.clone(), Arc::clone(provider))));
    let slot = slot.get();
    slot.refs.fetch_add(1, Ordering::Relaxed);
    SlotRef::counted(Arc::clone(slot))
}

/// One reference less; the last one removes the slot.
pub(crate) fn forget(slot: &Arc<Slot>) {
    // Every count but the last goes down without the shard's lock. The last one is taken under
    // it, where `enter` counts up, so that no slot is removed that somebody just found.
    let refs = &slot.refs;
    let not_last = |refs: usize| (refs > 1).then(|| refs - 1);
    if refs
        .fetch_update(Ordering::AcqRel, Ordering::Relaxed, not_last)
        .is_ok()
    {
        return;
    }
    let mut guard = TABLE.shard(slot.hash);
    let shard = &mut *guard;
    if refs.fetch_sub(1, Ordering::AcqRel) > 1 {
        return;
    }
    let entry = shard.find_entry(slot.hash, |other| Arc::ptr_eq(other, slot));
    let removed = entry.ok().map(|entry| entry.remove().0);
    if shard.capacity() > KEPT_CAPACITY && shard.len() < shard.capacity() / 8 {
        let kept = (shard.len() * 2).max(KEPT_CAPACITY);
        shard.shrink_to(kept, |slot| slot.hash);
    }
    drop(guard);
    // What it holds, the provider for one, may do anything when dropped.
    drop(removed);
}

/// Every slot of the process.
pub(crate) fn all() -> Vec<SlotRef> {
    let mut slots = Vec::new();
    for shard in &TABLE.shards {
        let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in shard.iter() {
            slot.refs.fetch_add(1, Ordering::Relaxed);
            slots.push(SlotRef::counted(Arc::clone(slot)));
        }
    }
    slots
}
