//! The line of those who wait for a shared slot: who comes, who is served, who fails.

use std::sync::Arc;

use super::effects::Effects;
use super::shared_state::{Aim, Hold, Inside, Served, State, UnderWay, Waiter, key};
use super::slot::{SlotRef, Wanted};
use crate::clock::Timestamp;
use crate::error::LockError;
use crate::lease::Lease;
use crate::provider::LockMode;
use crate::token::FencingToken;

impl Inside {
    /// Adds what this mode takes. True if it is the first of several readers.
    #[inline]
    pub(super) fn add(&mut self, mode: LockMode) -> bool {
        match mode {
            LockMode::Read => {
                self.readers += 1;
                return self.readers == 1;
            }
            LockMode::Permits { take, .. } => self.permits += u64::from(take.get()),
            LockMode::Upgradeable => self.upgradeable = true,
            LockMode::Write | LockMode::Exclusive => self.writes = true,
        }
        false
    }

    /// Takes away what this mode took.
    #[inline]
    pub(super) fn take_away(&mut self, mode: LockMode) {
        match mode {
            LockMode::Read => self.readers -= 1,
            LockMode::Permits { take, .. } => self.permits -= u64::from(take.get()),
            LockMode::Upgradeable => self.upgradeable = false,
            LockMode::Write | LockMode::Exclusive => self.writes = false,
        }
    }
}

impl State {
    /// Adds a waiter at the end, and returns its ticket.
    pub(super) fn push(&mut self, mode: LockMode, wanted: &Wanted, until: Timestamp) -> u64 {
        self.last_ticket += 1;
        let behind_writer = self.has_writer_ahead();
        let behind_upgradeable = self.upgradeables > 0;
        let waiter = self.queue.push(self.last_ticket);
        wanted.describe(waiter, until);
        waiter.wish = Aim {
            mode,
            behind_writer,
            behind_upgradeable,
        };
        self.tries += usize::from(!wanted.waits());
        self.writers += usize::from(mode == LockMode::Write);
        self.upgradeables += usize::from(mode == LockMode::Upgradeable);
        self.last_ticket
    }

    fn has_left(&mut self, waiter: &Waiter) {
        self.tries -= usize::from(!waiter.waits);
        self.writers -= usize::from(waiter.wish.mode == LockMode::Write);
        self.upgradeables -= usize::from(waiter.wish.mode == LockMode::Upgradeable);
    }

    /// Takes the waiter of this ticket out.
    pub(super) fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.queue.remove(ticket)?;
        self.has_left(&waiter);
        Some(waiter)
    }

    fn pop(&mut self) -> Option<Waiter> {
        let waiter = self.queue.pop()?;
        self.has_left(&waiter);
        Some(waiter)
    }

    /// Keeps a hold, or puts it back.
    pub(super) fn keep(&mut self, hold: Hold) {
        if let LockMode::Permits { take, .. } = hold.mode {
            self.permits_held += u64::from(take.get());
        }
        self.holds.insert(key(&hold.lease), hold);
    }

    pub(super) fn take_hold(&mut self, key: usize) -> Option<Hold> {
        let hold = self.holds.remove(&key)?;
        if let LockMode::Permits { take, .. } = hold.mode {
            self.permits_held -= u64::from(take.get());
        }
        Some(hold)
    }

    /// Tells whether somebody has a share of this hold.
    pub(super) fn holds_shares(&self, key: usize) -> bool {
        self.holds.get(&key).is_some_and(|hold| hold.shares > 0)
    }

    /// Notes the token of a writer.
    pub(super) fn note_write(&mut self, token: Option<FencingToken>) {
        self.highest_write = self.highest_write.max(token);
    }

    /// Serves the head of the queue inside. True if it is the first of several readers.
    pub(super) fn serve_inside(&mut self, effects: &mut Effects) -> bool {
        self.note_holder();
        let Some(head) = self.pop() else { return false };
        let first = self.inside.add(head.wish.mode);
        self.serve(head, None, None, effects);
        first
    }

    /// Serves the head of the queue with a share of this hold.
    pub(super) fn serve_share(&mut self, mut hold: Hold, effects: &mut Effects) {
        self.note_holder();
        if let Some(head) = self.pop() {
            if hold.shares == 0 {
                hold.lease.passed_to(head.ticket);
            }
            hold.shares += 1;
            hold.template = head.template;
            self.serve(head, hold.token, Some(Arc::clone(&hold.lease)), effects);
        }
        self.keep(hold);
    }

    fn serve(
        &mut self,
        mut waiter: Waiter,
        token: Option<FencingToken>,
        lease: Option<Arc<Lease>>,
        effects: &mut Effects,
    ) {
        effects.wake(waiter.waker.take());
        let served = Served {
            mode: waiter.wish.mode,
            token,
            lease,
            template: waiter.template,
            until: waiter.until,
            untaken: Timestamp::NONE,
        };
        self.served.insert(waiter.ticket, served);
        drop_later(waiter, effects);
    }

    /// Fails the waiters for which `which` is true.
    pub(super) fn fail(&mut self, error: &LockError, which: impl Fn(&Waiter) -> bool) -> Effects {
        let mut effects = Effects::default();
        let failed = self.queue.take(which);
        if failed.is_empty() {
            return effects;
        }
        let error = Arc::new(error.clone());
        for mut waiter in failed {
            self.has_left(&waiter);
            self.failed.insert(waiter.ticket, Arc::clone(&error));
            effects.wake(waiter.waker.take());
            drop_later(waiter, &mut effects);
        }
        effects
    }

    /// Tells whether the timekeeper must be told to look at this slot: a grant is not taken, and
    /// the timekeeper does not look yet.
    pub(super) fn be_looked_at(&mut self) -> bool {
        !self.served.is_empty() && !std::mem::replace(&mut self.looked_at, true)
    }
}

/// Drops a waiter once the slot's lock is free, if that may run code of others.
pub(super) fn drop_later(waiter: Waiter, effects: &mut Effects) {
    if waiter.source.is_some() || waiter.waker.is_some() {
        effects.later(move || drop(waiter));
    }
}

impl SlotRef {
    /// Serves whom it can, and asks for the head of the queue.
    pub(super) fn advance(&self, state: &mut State) -> Effects {
        let mut effects = self.advance_upgrade(state);
        while let Some(head) = state.queue.front() {
            let mode = head.wish.mode;
            if self
                .source_of(head)
                .ask()
                .is_ok_and(|facts| facts.in_process)
            {
                if !state.fits(mode) {
                    break;
                }
                if state.serve_inside(&mut effects) {
                    self.shared().begin_reading();
                }
                continue;
            }
            let goes_on = match mode {
                LockMode::Permits { .. } => self.advance_permits(state, &mut effects),
                _ => self.advance_rw(state, &mut effects),
            };
            if !goes_on {
                break;
            }
        }
        self.refuse_tries(state, &mut effects);
        effects
    }

    /// Tells whether the queues of this process are the lock itself, and not a server.
    pub(super) fn is_the_lock(&self) -> bool {
        self.space.is_in_process()
    }

    /// Abandons the call under way if there is nobody at the head whom its grant may serve. Returns
    /// the interest in it then.
    pub(super) fn adjust_call(&self, state: &State, effects: &mut Effects) -> bool {
        let Some(UnderWay::Acquire { mode, interest, .. }) = &state.call else {
            return false;
        };
        let serves = state
            .queue
            .front()
            .is_some_and(|head| head.wish.mode == *mode);
        match serves {
            true => interest.want_tokens(state.tokens_wanted()),
            false => effects.abandon(interest.clone()),
        }
        !serves
    }

    /// Refuses those who only try and have seen a holder in their way, or has them refused when the
    /// call under way sees one.
    pub(super) fn refuse_tries(&self, state: &mut State, effects: &mut Effects) {
        if state.tries == 0 {
            return;
        }
        let Some(head) = state.queue.front() else {
            return;
        };
        let asks = state.call.is_some();
        if let Some(UnderWay::Acquire { interest, .. }) = &state.call {
            let slot = Arc::downgrade(&self.slot);
            interest.when_contended(move || {
                if let Some(slot) = slot.upgrade() {
                    SlotRef::any(slot).call_is_contended();
                }
            });
        }
        let is_inside = self
            .source_of(head)
            .ask()
            .is_ok_and(|facts| facts.in_process);
        let head_writes = head.wish.mode == LockMode::Write;
        let refused = self.share_is_refused(state);
        // Those behind one who waits for the right to upgrade come after it.
        let waits_for_right = head.wish.mode == LockMode::Upgradeable && state.has_upgradeable();
        let more = if state.sees_holder_of_tries() || (is_inside && !asks) || waits_for_right {
            state.fail(&refused, |waiter| !waiter.waits)
        } else if !state.holds.is_empty() && !matches!(head.wish.mode, LockMode::Permits { .. }) {
            // Somebody reads. A reader may share the answer of the one before it, unless a writer
            // waits.
            state.fail(&refused, |waiter| {
                !waiter.waits && (head_writes || waiter.wish.mode == LockMode::Write)
            })
        } else {
            Effects::default()
        };
        effects.extend(more);
    }

    /// Refuses those who only try, since the server has named a holder to the call under way.
    fn call_is_contended(&self) {
        let mut state = self.shared().lock();
        state.note_holder();
        let mut effects = Effects::default();
        self.refuse_tries(&mut state, &mut effects);
        drop(state);
        effects.happen();
    }
}

impl State {
    /// Tells whether a holder is seen that is in the way of everybody who only tries. Permits that
    /// this process has say nothing about those that the server has left.
    fn sees_holder_of_tries(&self) -> bool {
        self.is_told() || self.is_kept_by_writer()
    }
}
