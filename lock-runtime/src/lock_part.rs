//! `LockPart`: one lock of a `DistributedMultiLock`.

use std::fmt;
use std::sync::Arc;

use crate::cached_slot::CachedSlot;
use crate::clock::Span;
use crate::gate::ReleaseMode;
use crate::name::LockName;
use crate::several::Wish;
use crate::source::Source;

/// One lock of a [`DistributedMultiLock`](crate::DistributedMultiLock), with what is wanted of it.
///
/// A [`DistributedLock`](crate::DistributedLock) becomes one by `into`. The others come from
/// [`DistributedRwLock::reading`](crate::DistributedRwLock::reading),
/// [`DistributedRwLock::writing`](crate::DistributedRwLock::writing) and
/// [`DistributedSemaphore::taking`](crate::DistributedSemaphore::taking). It keeps the settings of
/// the lock that it is made of.
#[derive(Clone)]
pub struct LockPart {
    pub(crate) source: Option<Arc<Source>>,
    pub(crate) name: LockName,
    pub(crate) wish: Wish,
    pub(crate) lease: Span,
    pub(crate) min_hold: Span,
    pub(crate) release: ReleaseMode,
    pub(crate) slot: CachedSlot,
}

impl fmt::Debug for LockPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = self.source.as_ref().map(|source| source.name());
        f.debug_struct("LockPart")
            .field("name", &self.name)
            .field("wish", &self.wish)
            .field("provider", &provider.unwrap_or("default"))
            .field("lease", &self.lease.get())
            .field("min_hold", &self.min_hold.get())
            .field("release", &self.release)
            .finish()
    }
}
