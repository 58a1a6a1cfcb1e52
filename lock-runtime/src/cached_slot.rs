//! The slot of a name that is asked for again and again.

use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::error::LockError;
use crate::gate::{self, SlotRef};
use crate::name::LockName;
use crate::source::Source;

/// The slot that was found first for a name; looking it up again costs more than all the rest.
#[derive(Clone)]
pub(crate) struct CachedSlot(OnceCell<SlotRef>);

impl CachedSlot {
    pub(crate) const fn new() -> Self {
        Self(OnceCell::new())
    }

    /// The slot of this name, which is always the same.
    #[inline]
    pub(crate) fn get(&self, source: &Arc<Source>, name: &LockName) -> Result<SlotRef, LockError> {
        let cached = self.0.get_or_try_init(|| gate::enter(source, name))?;
        if Arc::ptr_eq(cached.source(), source) {
            return Ok(cached.clone());
        }
        // A default provider was registered since.
        gate::enter(source, name)
    }
}
