//! The looks at a slot, ten times a second: at a grant that its caller does not take, and at a call
//! that the provider does not answer.
//!
//! A grant goes to the waiter whose turn it is. Its future may be kept and not polled, as the
//! losing arm of a `select!` over `&mut future` is. Without these looks the lock would be held and
//! renewed for a caller that does nothing with it.

use std::sync::{Arc, MutexGuard, Weak};
use std::time::Duration;

use super::acquisition::ANY_LEASE;
use super::release_answer::ReleaseMode;
use super::slot::{Slot, SlotRef};
use super::state::{Phase, State};
use crate::background;
use crate::call::SLOW;
use crate::clock::Timestamp;
use crate::lease::schedule::Unsettled;
use crate::lease::timekeeper;
use crate::telemetry::spans;

/// How long after its timeout a caller may still take its grant.
pub(super) const GRACE: Duration = Duration::from_millis(50);

impl SlotRef {
    pub(super) fn unsettled(&self) -> Weak<dyn Unsettled> {
        let slot: Weak<Slot> = Arc::downgrade(&self.slot);
        slot
    }

    /// Has the timekeeper look whether the grant is taken, if it is to look at one.
    pub(super) fn look_later(&self, is_to_be_looked_at: bool) {
        if !is_to_be_looked_at {
            return;
        }
        if background::is_there() {
            timekeeper::look_at(self.unsettled());
        } else {
            match &self.shared {
                Some(shared) => shared.lock().looked_at = false,
                None => self.lock().looked_at = false,
            }
        }
    }

    /// Has the timekeeper look at the call that begins.
    pub(super) fn look_at_call(&self, state: &mut State) {
        state.asked_at = Some(Timestamp::now());
        if !std::mem::replace(&mut state.looked_at, true) {
            timekeeper::look_at(self.unsettled());
        }
    }

    /// Takes back a grant that is not taken, and warns of a call that is not answered. False if
    /// there is no need to look again.
    pub(crate) fn look(&self, now: Timestamp) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        let operation = match &state.phase {
            Phase::Held { taken: false, .. } => return self.look_at_grant(guard, now),
            // An acquisition that waits for a known holder may take for ever.
            Phase::Acquiring(interest) if !interest.is_contended() => "acquire",
            Phase::Releasing { deferred: None, .. } => "release",
            _ => {
                state.looked_at = false;
                return false;
            }
        };
        if state.asked_at.is_none_or(|asked_at| asked_at + SLOW > now) {
            return true;
        }
        state.looked_at = false;
        drop(guard);
        spans::unanswered(self.source().name(), operation, &self.name, SLOW);
        false
    }

    /// Takes back a grant that was not taken in time, for the next waiter.
    ///
    /// A grant with a lease is not renewed until it is taken, so its lease is the bound. A grant
    /// without a lease has [`ANY_LEASE`] to be taken.
    fn look_at_grant(&self, mut guard: MutexGuard<'_, State>, now: Timestamp) -> bool {
        let state = &mut *guard;
        let Phase::Held { ticket, lease, .. } = &state.phase else {
            return false;
        };
        let ticket = *ticket;
        let has_passed = |until| until != Timestamp::NONE && until + GRACE <= now;
        let has_lease = lease.as_ref().is_some_and(|lease| lease.has_lease());
        if state.served.untaken == Timestamp::NONE {
            state.served.untaken = now;
        }
        let since = state.served.untaken;
        let timed_out = has_passed(state.served.until);
        if !timed_out && (has_lease || since + ANY_LEASE > now) {
            return true;
        }
        // Waiters whose timeout has passed would not take the grant either.
        let mut gone = Vec::new();
        while let Some(head) = state.queue.front()
            && has_passed(head.until)
        {
            gone.extend(state.queue.pop());
        }
        let template = state.served.template;
        state.note_unused(ticket);
        // Released under the same lock. A caller that took the grant in between would share it with
        // the next one.
        self.release_at(guard, ticket, ReleaseMode::Confirmed, None);
        drop(gone);
        spans::not_taken(&self.name, self.source().name(), template);
        self.lock().looked_at
    }
}

impl Unsettled for Slot {
    fn look(self: Arc<Self>, now: Timestamp) -> bool {
        let slot = SlotRef::any(self);
        match slot.shared.is_some() {
            true => slot.look_at_shares(now),
            false => slot.look(now),
        }
    }
}
