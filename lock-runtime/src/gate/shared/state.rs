//! The state of a slot that may have several holders.

use std::sync::Arc;

use super::super::slot::Wanted;
use crate::clock::Timestamp;
use crate::lease::Lease;
use crate::provider::{LockKind, LockMode};
use crate::reentrancy::Holding;
use crate::token::FencingToken;

/// What a guard has of a shared slot.
pub(crate) struct Share {
    pub(crate) mode: LockMode,
    pub(crate) token: Option<FencingToken>,
    /// `None` for a lock of this process alone.
    pub(crate) lease: Option<Arc<Lease>>,
    /// The moment until which `min_hold` keeps it, even if the guard goes before.
    pub(crate) keep_until: Timestamp,
}

impl Share {
    #[inline]
    pub(crate) fn new(
        mode: LockMode,
        token: Option<FencingToken>,
        lease: Option<Arc<Lease>>,
        wanted: &Wanted,
    ) -> Self {
        let min_hold = wanted.min_hold.get().filter(|min_hold| !min_hold.is_zero());
        let keep_until = match (mode, min_hold) {
            (LockMode::Read, _) | (_, None) => Timestamp::NONE,
            (_, Some(min_hold)) => Timestamp::now() + min_hold,
        };
        Self {
            mode,
            token,
            lease,
            keep_until,
        }
    }

    /// Returns what a body that runs with it holds of its lock.
    pub(crate) fn holding(&self) -> Holding {
        match self.mode {
            LockMode::Exclusive | LockMode::Write => Holding::Alone,
            LockMode::Read => Holding::Reading,
            LockMode::Permits { take, .. } => Holding::Permits(take),
        }
    }
}

/// What a slot has that may have several holders.
pub(crate) struct Shared {}

impl Shared {
    pub(in super::super) fn new(_kind: LockKind) -> Self {
        Self {}
    }
}
