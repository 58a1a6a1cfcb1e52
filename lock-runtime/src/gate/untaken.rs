//! Grants that nobody takes: the caller's future is kept and not polled.
//!
//! A grant goes to the waiter whose turn it is. If its future rests, as the losing arm of a
//! `select!` over `&mut future` does, the lock would be held, and renewed, for nobody.

use std::sync::Arc;
use std::time::Duration;

use super::calls::ANY_LEASE;
use super::state::Phase;
use super::{Slot, SlotRef};
use crate::clock::Timestamp;
use crate::{keeper, observe};

/// How much later than its timeout a caller may come for its grant.
const GRACE: Duration = Duration::from_millis(50);

impl SlotRef {
    /// Has the background thread look whether the grant is taken, if there is one to look at.
    pub(super) fn look_later(&self, is_to_be_looked_at: bool) {
        if is_to_be_looked_at && !keeper::look_at(Arc::downgrade(&self.slot)) {
            self.lock().looked_at = false;
        }
    }

    /// Takes back a grant that was not taken in time, for the next waiter. False if there is no
    /// need to look again.
    ///
    /// A grant with a lease is not renewed until it is taken, so that its lease is the bound; one
    /// without has one here.
    pub(crate) fn look_at_grant(&self, now: Timestamp) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Phase::Held {
            ticket,
            taken: false,
            hold,
            ..
        } = &state.phase
        else {
            state.looked_at = false;
            return false;
        };
        let ticket = *ticket;
        let has_passed = |until| until != Timestamp::NONE && until + GRACE <= now;
        let has_lease = hold.as_ref().is_some_and(|hold| hold.has_lease());
        let since = *state.served.untaken.get_or_insert(now);
        let timed_out = has_passed(state.served.until);
        if !timed_out && (has_lease || since + ANY_LEASE > now) {
            return true;
        }
        // It would only come back from them in the same way.
        let mut gone = Vec::new();
        while let Some(head) = state.queue.front()
            && has_passed(head.until)
        {
            gone.extend(state.queue.pop());
        }
        let template = state.served.template;
        drop(guard);
        drop(gone);
        observe::not_taken(self, template);
        self.give_back_ticket(ticket);
        self.lock().looked_at
    }
}

impl Slot {
    /// A reference for the background thread.
    pub(crate) fn look_at_grant(self: Arc<Self>, now: Timestamp) -> bool {
        SlotRef::any(self).look_at_grant(now)
    }
}
