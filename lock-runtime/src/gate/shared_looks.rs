//! The looks at a slot that may have several holders, ten times a second: at grants that their
//! callers do not take, and at a call that the provider does not answer.

use super::acquisition::ANY_LEASE;
use super::effects::Effects;
use super::looks::GRACE;
use super::shared_lines::drop_later;
use super::shared_state::{State, UnderWay};
use super::slot::SlotRef;
use crate::call::SLOW;
use crate::clock::Timestamp;
use crate::lease::timekeeper;
use crate::telemetry::spans;

impl SlotRef {
    /// Has the timekeeper look at the call that begins.
    pub(super) fn look_at_shared_call(&self, state: &mut State) {
        state.asked_at = Some(Timestamp::now());
        if !std::mem::replace(&mut state.looked_at, true) {
            timekeeper::look_at(self.unsettled());
        }
    }

    /// Takes back grants that are not taken, and warns of a call that is not answered. False if
    /// there is no need to look again.
    pub(super) fn look_at_shares(&self, now: Timestamp) -> bool {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        let mut overdue = Vec::new();
        for (ticket, served) in &mut state.served {
            if served.untaken == Timestamp::NONE {
                served.untaken = now;
            }
            // A lease that others share is renewed for them, so it is no bound.
            let timed_out = served.until != Timestamp::NONE && served.until + GRACE <= now;
            if timed_out || served.untaken + ANY_LEASE <= now {
                overdue.push(*ticket);
            }
        }
        let mut untaken = Vec::new();
        for ticket in overdue {
            state.note_unused(ticket);
            untaken.extend(state.served.remove(&ticket));
        }
        let mut effects = Effects::default();
        if !untaken.is_empty() {
            self.drop_late_heads(state, now, &mut effects);
        }
        let operation = match &state.call {
            // An acquisition that waits for a known holder may take for ever.
            Some(UnderWay::Acquire { interest, .. }) if !interest.is_contended() => "acquire",
            Some(UnderWay::Probe(_)) => "may_share",
            _ if state.asks_to_upgrade() => "upgrade",
            _ if state.releasing > state.lingering => "release",
            _ => "",
        };
        let asks = !operation.is_empty() && state.asked_at.is_some();
        let is_slow = asks && state.asked_at.is_none_or(|asked_at| asked_at + SLOW <= now);
        if is_slow {
            state.asked_at = None;
        }
        let looks_again = !state.served.is_empty() || (asks && !is_slow);
        state.looked_at = looks_again;
        drop(guard);
        effects.happen();
        if is_slow {
            spans::unanswered(self.source().name(), operation, &self.name, SLOW);
        }
        for served in untaken {
            let template = served.template;
            self.give_back_unused(served.mode, served.lease);
            spans::not_taken(&self.name, self.source().name(), template);
        }
        looks_again
    }

    /// Takes heads of the queue out whose timeout has passed. They would not take a grant either.
    fn drop_late_heads(&self, state: &mut State, now: Timestamp, effects: &mut Effects) {
        while let Some(head) = state.queue.front()
            && head.until != Timestamp::NONE
            && head.until + GRACE <= now
        {
            let ticket = head.ticket;
            if let Some(waiter) = state.remove(ticket) {
                drop_later(waiter, effects);
            }
        }
        self.adjust_call(state, effects);
    }
}
