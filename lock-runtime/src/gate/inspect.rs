//! Who holds a key, as far as this process knows.

use super::shared_state;
use super::slot::{Slot, SlotRef};
use super::state::{Phase, of_lease};
use crate::provider::{Holder, LockKind, LockMode, LockState};

impl Slot {
    /// Returns which kind of lock the key is.
    pub(crate) fn kind(&self) -> LockKind {
        self.kind
    }

    /// Describes a lock that is nothing but this queue.
    pub(crate) fn state_inside(&self) -> LockState {
        if self.shared.is_some() {
            return self.shared().lock().described();
        }
        let state = self.lock();
        let holders = match &state.phase {
            Phase::Held { lease, .. } | Phase::Resting(lease, _) => {
                vec![of_lease(lease.as_ref()).with_mode(LockMode::Exclusive)]
            }
            _ => Vec::new(),
        };
        LockState::new(holders).with_waiters(state.queue.len())
    }

    /// Returns what this process knows of its own grants of the key.
    fn own(&self) -> Vec<Holder> {
        if self.shared.is_some() {
            return self.shared().lock().own();
        }
        match &self.lock().phase {
            Phase::Held { lease, .. } | Phase::Resting(lease, _) => {
                lease.iter().map(|lease| lease.holder()).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl SlotRef {
    /// Adds to a provider's answer since when this process has the lock, which no server knows.
    pub(crate) fn add_what_is_known(&self, state: LockState) -> LockState {
        let [own] = &self.own()[..] else {
            return state;
        };
        state.with_own(own)
    }
}

impl shared_state::State {
    /// Describes a lock that is nothing but this queue.
    fn described(&self) -> LockState {
        let inside = &self.inside;
        let mut holders = Vec::new();
        for _ in 0..inside.readers {
            holders.push(Holder::here().with_mode(LockMode::Read));
        }
        if inside.upgradeable {
            holders.push(Holder::here().with_mode(LockMode::Upgradeable));
        }
        if inside.writes {
            holders.push(Holder::here().with_mode(LockMode::Write));
        }
        if inside.permits > 0 {
            let permits = u32::try_from(inside.permits).unwrap_or(u32::MAX);
            holders.push(Holder::here().with_permits(permits));
        }
        // Those of wrappers.
        holders.extend(self.own());
        LockState::new(holders).with_waiters(self.queue.len())
    }

    fn own(&self) -> Vec<Holder> {
        self.holds
            .values()
            .map(|hold| hold.lease.holder())
            .collect()
    }
}
