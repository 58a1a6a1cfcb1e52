//! The end of what a slot with several holders has: a share that is given back, a grant that is
//! lost, and the provider's call that releases it.

use std::sync::Arc;

use tokio::sync::Notify;

use super::effects::Effects;
use super::release::Release;
use super::release_answer::{Answer, Answers, ReleaseMode, answer};
use super::shared_state::{Hold, Share, Stalled, State, UnderWay, key};
use super::slot::SlotRef;
use crate::background;
use crate::clock::Timestamp;
use crate::error::LockError;
use crate::lease::Lease;
use crate::provider::LockMode;
use crate::telemetry::spans;

impl SlotRef {
    /// Ends a share, but not before its `min_hold` is over. The last share of a grant passes the
    /// grant on, or gives it back to the server.
    #[inline]
    pub(crate) fn release_share(&self, share: &Share, mode: ReleaseMode) -> Release {
        match &share.lease {
            None => self.release_inside(share.mode, share.keep_until),
            Some(lease) => self.release_of_hold(lease, mode, share.keep_until),
        }
    }

    /// Ends a share of a lock of this process alone.
    #[inline]
    pub(super) fn release_inside(&self, mode: LockMode, keep_until: Timestamp) -> Release {
        if keep_until != Timestamp::NONE && !keep_until.has_passed() {
            let slot = self.clone();
            let rest = background::run(async move {
                tokio::time::sleep(keep_until.remaining()).await;
                slot.release_inside(mode, Timestamp::NONE);
            });
            match rest {
                Ok(()) => return Release::Done,
                // It is freed early, as there is nobody who could free it later.
                Err((_, job)) => drop(job),
            }
        }
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        if state.queue.is_empty() && state.upgrade.is_none() {
            state.inside.take_away(mode);
            return Release::Done;
        }
        state.note_holder();
        let mode = Self::left_inside(state, mode);
        state.inside.take_away(mode);
        let effects = self.advance(state);
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        Release::Done
    }

    fn release_of_hold(
        &self,
        lease: &Arc<Lease>,
        mode: ReleaseMode,
        keep_until: Timestamp,
    ) -> Release {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        let upgraded;
        let lease = match state.upgrade {
            None => lease,
            Some(_) => match Self::left_upgrade(state, lease, mode) {
                Ok(lease) => {
                    upgraded = lease;
                    &upgraded
                }
                Err((release, effects)) => {
                    drop(guard);
                    effects.happen();
                    return release;
                }
            },
        };
        let lost = lease.is_lost();
        let key = key(lease);
        let Some(hold) = state.holds.get_mut(&key) else {
            let gone = state.leave_lost(key);
            drop(guard);
            if gone {
                lease.leave();
            }
            return Release::NotHeld;
        };
        if hold.shares > 1 {
            hold.shares -= 1;
            return Release::Done;
        }
        let template = hold.template;
        state.note_holder();
        let Some(mut hold) = state.take_hold(key) else {
            unreachable!("it was just there")
        };
        hold.shares = 0;
        let keeps = keep_until != Timestamp::NONE && !lost && !keep_until.has_passed();
        let (release, mut effects) = match keeps {
            true => self.rest_hold(state, hold, mode, keep_until),
            false => self.hold_is_free(state, hold, mode),
        };
        effects.extend(self.advance(state));
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        if lost {
            // No body runs under it, so the server need not keep it.
            lease.leave();
            lease.tell_of_loss(template);
        }
        release
    }

    /// Passes on a hold that nobody has a share of, or gives it back.
    fn hold_is_free(&self, state: &mut State, hold: Hold, mode: ReleaseMode) -> (Release, Effects) {
        match hold.mode {
            LockMode::Permits { .. } => self.permits_are_free(state, hold, mode),
            LockMode::Read | LockMode::Upgradeable => self.reading_is_over(state, hold, mode),
            _ => self.write_is_over(state, hold, mode),
        }
    }

    /// Tells whether the head of the queue may have this lease without the server.
    pub(super) fn head_may_have(&self, state: &State, hold: &Hold) -> bool {
        !hold.lease.is_lost()
            && state.queue.front().is_some_and(|head| {
                head.wish.mode == hold.mode
                    && hold.lease.serves(self.source_of(head), head.lease.get())
            })
    }

    /// Gives this grant up in the step that asks for the head of the queue, if the head's own
    /// provider made it and nothing else is in the way. Else gives it back.
    pub(super) fn give_up_for_head(
        &self,
        state: &mut State,
        lease: Arc<Lease>,
        mode: ReleaseMode,
    ) -> (Release, Effects) {
        lease.end();
        let passes_on = !lease.is_lost()
            && state.call.is_none()
            && state.releasing == 0
            && !state.paused
            && !state.has_writer()
            && !state.upgrades()
            && state.queue.front().is_some_and(|head| {
                // A reader joins those who read, if there are any.
                let joins = head.wish.mode == LockMode::Read && state.has_hold(LockMode::Read);
                !joins
                    && lease.is_of(self.source_of(head))
                    && (!self.is_the_lock() || state.fits(head.wish.mode))
            });
        match passes_on {
            true => (Release::Done, self.ask_for_head(state, Some(lease))),
            false => {
                let (answer, effects) = self.start_releasing_share(state, lease, mode);
                (Release::Asked(answer), effects)
            }
        }
    }

    /// Keeps a hold until this moment. The provider is asked to do so by itself. If it cannot, this
    /// process renews it until then and gives it back.
    fn rest_hold(
        &self,
        state: &mut State,
        mut hold: Hold,
        mode: ReleaseMode,
        until: Timestamp,
    ) -> (Release, Effects) {
        let lease = Arc::clone(&hold.lease);
        // A renewal could undo what the server is now asked for.
        lease.pause_renewals();
        lease.vacate();
        let end = Arc::new(Notify::new());
        let (answers, answer) = answer(mode);
        let (slot, ends) = (self.of(&lease), Arc::clone(&end));
        let rest = async move { slot.rest_on_server(lease, until, &ends, answers).await };
        match background::run(rest) {
            Ok(()) => {
                hold.resting = Some(end);
                state.keep(hold);
                (Release::Asked(answer), Effects::default())
            }
            Err((_, job)) => {
                let (_, mut effects) = self.hold_is_free(state, hold, mode);
                effects.drop_job(job);
                (Release::NotHeld, effects)
            }
        }
    }

    /// Gives back a hold whose rest is over.
    pub(super) fn hold_has_rested(&self, lease: &Arc<Lease>) {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        state.note_holder();
        let Some(hold) = state.take_hold(key(lease)) else {
            return;
        };
        let (_, mut effects) = self.hold_is_free(state, hold, ReleaseMode::Confirmed);
        effects.extend(self.advance(state));
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
    }

    /// Goes on without a hold, which the provider now ends by itself at `until`.
    pub(super) fn hold_is_left(&self, lease: &Arc<Lease>, until: Timestamp) {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        state.note_holder();
        let Some(hold) = state.take_hold(key(lease)) else {
            return;
        };
        if hold.mode == LockMode::Write {
            state.rests_until = Some(until);
        }
        let effects = self.advance(state);
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        drop(hold);
    }

    /// Goes on without this lease, which has ended by itself: all who share it have lost it.
    pub(super) fn hold_is_lost(&self, lost: &Lease) {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        let key = std::ptr::from_ref(lost).addr();
        if !state.holds.contains_key(&key) {
            return;
        }
        state.note_holder();
        let Some(hold) = state.take_hold(key) else {
            unreachable!("it was just there")
        };
        // Those who have not taken their share find it gone, and come again.
        let is_of = |lease: &Option<Arc<Lease>>| {
            let lease = lease.as_ref();
            lease.is_some_and(|lease| std::ptr::eq(&**lease, lost))
        };
        let mut untaken = Vec::new();
        while let Some((&ticket, _)) = state.served.iter().find(|(_, one)| is_of(&one.lease)) {
            untaken.extend(state.served.remove(&ticket));
            state.note_unused(ticket);
        }
        let mut effects = Effects::default();
        if let Some(upgrade) = &mut state.upgrade
            && upgrade.is_of(Some(&hold.lease))
        {
            effects.wake(upgrade.answer(Err(lost.loss())));
            if let Some(interest) = &upgrade.call {
                effects.abandon(interest.clone());
            }
        }
        let guards = hold
            .shares
            .saturating_sub(u32::try_from(untaken.len()).unwrap_or(u32::MAX));
        if guards == 0 {
            // No body runs, so the server need not keep other processes away.
            lost.leave();
        } else {
            state.lost.insert(key, guards);
        }
        hold.lease.end();
        // The server may still have the lock, since its deadline comes after ours.
        let lease = Arc::clone(&hold.lease);
        let mode = ReleaseMode::Confirmed;
        effects.extend(
            self.start_releasing_share(state, Arc::clone(&lease), mode)
                .1,
        );
        effects.extend(self.advance(state));
        drop(guard);
        effects.happen();
        match guards {
            0 if !untaken.is_empty() => {
                spans::not_taken(&self.name, self.source().name(), hold.template);
            }
            _ => lease.tell_of_loss(hold.template),
        }
    }

    /// Has the provider release the lease. If the lock is kept on the server after its loss, the
    /// release waits until the guards are gone.
    pub(super) fn start_releasing_share(
        &self,
        state: &mut State,
        lease: Arc<Lease>,
        mode: ReleaseMode,
    ) -> (Answer, Effects) {
        let (answers, answer) = answer(mode);
        (answer, self.release_share_to(state, lease, answers))
    }

    /// Has the provider release the lease, and answers whoever waits for that.
    pub(super) fn release_share_to(
        &self,
        state: &mut State,
        lease: Arc<Lease>,
        answers: Answers,
    ) -> Effects {
        let waits_for_guards = lease.is_retained();
        // The provider that made the grant releases it.
        let slot = self.of(&lease);
        let mut effects = Effects::default();
        if !waits_for_guards && let Some(calls) = lease.source().calls().cloned() {
            match background::count_next() {
                Ok(done) => {
                    self.release_begins(state);
                    effects.run(calls.push(slot.grouped_release(lease, answers, done)));
                }
                Err(_) => effects.later(move || drop((lease, answers))),
            }
            return effects;
        }
        let reads = matches!(lease.grant().mode(), LockMode::Read | LockMode::Upgradeable);
        let lingers = waits_for_guards && reads;
        let job = async move {
            if waits_for_guards {
                lease.wait_until_guard_gone().await;
                slot.guards_are_gone(&lease, lingers);
            }
            slot.finish_releasing(lease, None, answers).await;
        };
        match background::run_next(job) {
            Ok(()) => {
                self.release_begins(state);
                state.lingering += u32::from(lingers);
            }
            Err((_, job)) => effects.drop_job(job),
        }
        effects
    }

    fn release_begins(&self, state: &mut State) {
        state.releasing += 1;
        state.released_at = Some(Timestamp::now());
        self.look_at_shared_call(state);
    }

    /// Notes that no body runs any more under a lease that was lost, or that it had time to end.
    fn guards_are_gone(&self, lease: &Arc<Lease>, lingers: bool) {
        let mut state = self.shared().lock();
        state.note_holder();
        state.lost.remove(&key(lease));
        state.lingering -= u32::from(lingers);
        state.released_at = Some(Timestamp::now());
        let stalled = match state.lingering {
            0 => state.stalled.take(),
            _ => None,
        };
        let upgrade = match (state.lingering, &mut state.upgrade) {
            (0, Some(upgrade)) => upgrade.stalled.take().zip(upgrade.lease.clone()),
            _ => None,
        };
        let effects = self.advance(&mut state);
        drop(state);
        effects.happen();
        if let Some(((request, grant), lease)) = upgrade {
            self.of(&lease).upgrade_answered(&request, Ok(grant));
        }
        if let Some(stalled) = stalled {
            let Stalled {
                other,
                request,
                ticket,
                grant,
            } = *stalled;
            let slot = Self {
                slot: Arc::clone(&self.slot),
                other,
            };
            slot.acquired_shared(&request, ticket, Ok(grant));
        }
    }

    /// Goes on after a release.
    pub(super) fn share_is_released(&self) {
        let mut state = self.shared().lock();
        state.note_holder();
        state.releasing = state.releasing.saturating_sub(1);
        let effects = self.advance(&mut state);
        let looked_at = state.be_looked_at();
        drop(state);
        effects.happen();
        self.look_later(looked_at);
    }

    /// Ends the grants that the slot holds, and fails its waiters. Does nothing to what is held in
    /// this process alone, which ends with the process.
    pub(super) fn shut_holds_down(&self, error: &LockError) {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        if state.holds.is_empty() && state.call.is_none() && state.releasing == 0 {
            return;
        }
        state.note_holder();
        let mut effects = state.fail(error, |_| true);
        if let Some(UnderWay::Acquire { interest, .. }) = &state.call {
            effects.abandon(interest.clone());
        }
        let mut held = Vec::new();
        for hold in state.holds.values() {
            match &hold.resting {
                Some(end) => end.notify_one(),
                None => held.push(Arc::clone(&hold.lease)),
            }
        }
        drop(guard);
        effects.happen();
        for lease in held {
            lease.shut_down();
        }
    }
}

impl State {
    /// Notes that a guard of a lost grant is gone. True if it was the last one.
    pub(super) fn leave_lost(&mut self, key: usize) -> bool {
        let Some(left) = self.lost.get_mut(&key) else {
            return false;
        };
        *left -= 1;
        let gone = *left == 0;
        if gone {
            self.lost.remove(&key);
        }
        gone
    }
}
