//! `CachedSlot`: the slot of a name that is asked for again and again.

use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::error::LockError;
use crate::gate::{self, SlotRef};
use crate::name::LockName;
use crate::provider::LockKind;
use crate::source::Source;

/// The slot that was found first for a name. It is cached, since the look-up costs more than the
/// rest of an acquisition in the process.
#[derive(Clone)]
pub(crate) struct CachedSlot(OnceCell<SlotRef>);

impl CachedSlot {
    pub(crate) const fn new() -> Self {
        Self(OnceCell::new())
    }

    /// Returns the slot of this name. Name and kind must be the same at each call.
    #[inline]
    pub(crate) fn get(
        &self,
        source: &Arc<Source>,
        name: &LockName,
        kind: LockKind,
    ) -> Result<SlotRef, LockError> {
        let enter = || gate::enter(source, name, kind);
        let cached = self.0.get_or_try_init(enter)?;
        if Arc::ptr_eq(cached.source(), source) {
            return Ok(cached.clone());
        }
        // A default provider has been registered since.
        enter()
    }
}
