//! Reader–writer locks: which grant of the process a reader may join, and what follows a read or a
//! write.
//!
//! A process has one read grant of a name as a rule. Readers join it without the server for as long
//! as [`LocalHandOver::LONGEST`] after a moment at which no writer waited. Then the server is asked
//! whether one does. So a writer elsewhere waits for this time at most, and for those who read by
//! then.

use std::sync::Arc;

use super::effects::Effects;
use super::local_hand_over::LocalHandOver;
use super::release::Release;
use super::release_answer::ReleaseMode;
use super::shared_state::{Hold, State, UnderWay, key};
use super::slot::SlotRef;
use crate::background;
use crate::call::{measured, of_acquisition};
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::provider::LockMode;

impl SlotRef {
    /// Goes on with the head of the queue. True if it was served without the server.
    pub(super) fn advance_rw(&self, state: &mut State, effects: &mut Effects) -> bool {
        let Some(head) = state.queue.front() else {
            return false;
        };
        if state.call.is_some() || state.paused {
            return false;
        }
        let (mode, source) = (head.wish.mode, self.source_of(head));
        let readable = match mode {
            LockMode::Read if !state.upgrades() => {
                let holds = state.holds.iter();
                holds
                    .filter(|(_, hold)| hold.is_readable(source))
                    .max_by_key(|(_, hold)| hold.open_until)
            }
            _ => None,
        };
        if let Some((&key, hold)) = readable {
            if !hold.open_until.has_passed() {
                if let Some(hold) = state.take_hold(key) {
                    self.let_readers_in(state, hold, effects);
                }
                return true;
            }
            self.probe(state, key, effects);
            return false;
        }
        let is_barred = state.releasing > 0
            || state.has_writer()
            || state.upgrades()
            || (mode == LockMode::Upgradeable && state.has_upgradeable())
            || (self.is_the_lock() && !state.fits(mode));
        if !is_barred {
            effects.extend(self.ask_for_head(state, None));
        }
        false
    }

    /// Lets the head of the queue and all readers behind it share this hold, up to the first
    /// writer.
    pub(super) fn let_readers_in(&self, state: &mut State, hold: Hold, effects: &mut Effects) {
        let (lease, mut hold) = (Arc::clone(&hold.lease), Some(hold));
        while let Some(head) = state.queue.front()
            && head.wish.mode == LockMode::Read
            && lease.is_of(self.source_of(head))
            && let Some(shared) = hold.take().or_else(|| state.take_hold(key(&lease)))
        {
            state.serve_share(shared, effects);
        }
        if let Some(hold) = hold {
            state.keep(hold);
        }
    }

    /// Asks the provider whether more readers may join this hold.
    fn probe(&self, state: &mut State, key: usize, effects: &mut Effects) {
        let Some(hold) = state.holds.get(&key) else {
            return;
        };
        let lease = Arc::clone(&hold.lease);
        let slot = self.of(&lease);
        let sent_at = Timestamp::now();
        let probing = background::run(async move {
            let source = slot.source();
            let asked = async { source.provider.may_share(lease.grant()).await };
            let answer = measured(source.name(), "may_share", asked).await;
            let answer = answer.unwrap_or_else(|panicked| Err(panicked.into()));
            slot.probed(key, sent_at, answer);
        });
        match probing {
            Ok(()) => {
                state.call = Some(UnderWay::Probe(key));
                self.look_at_shared_call(state);
            }
            Err((_, job)) => {
                effects.drop_job(job);
                effects.extend(self.ask_for_head(state, None));
            }
        }
    }

    /// Acts on the answer whether more readers may join.
    fn probed(&self, key: usize, sent_at: Timestamp, answer: Result<bool, LockError>) {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        state.note_holder();
        state.call = None;
        let mut effects = Effects::default();
        let head_reads = state
            .queue
            .front()
            .is_some_and(|head| head.wish.mode == LockMode::Read);
        match (answer, state.take_hold(key)) {
            // They come after a reader who upgrades, and it goes on with them.
            (_, Some(hold)) if state.upgrades() => state.keep(hold),
            (Ok(true), Some(mut hold)) => {
                hold.open_until = sent_at + LocalHandOver::LONGEST;
                self.let_readers_in(state, hold, &mut effects);
            }
            (answer, Some(hold)) => {
                let unknown = match answer {
                    Ok(_) => {
                        // A writer waits elsewhere.
                        state.saw_holder = state.last_ticket;
                        self.error(LockErrorKind::Contended)
                    }
                    Err(error) => of_acquisition(error, false).with_name(self.name.clone()),
                };
                state.keep(hold);
                effects.extend(state.fail(&unknown, |waiter| !waiter.waits));
                // It waits behind that writer, while those who read here go on.
                if head_reads && !state.queue.is_empty() && state.holds_shares(key) {
                    effects.extend(self.ask_for_head(state, None));
                }
            }
            (_, None) => {}
        }
        // Those who read may have left meanwhile.
        if !state.holds_shares(key)
            && let Some(hold) = state.take_hold(key)
        {
            let (_, more) = self.reading_is_over(state, hold, ReleaseMode::Confirmed);
            effects.extend(more);
        }
        effects.extend(self.advance(state));
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
    }

    /// Goes on after the last reader of a hold, or after the one that could upgrade.
    pub(super) fn reading_is_over(
        &self,
        state: &mut State,
        hold: Hold,
        mode: ReleaseMode,
    ) -> (Release, Effects) {
        let key = key(&hold.lease);
        if matches!(state.call, Some(UnderWay::Probe(probed)) if probed == key) {
            // The provider is looking at it.
            state.keep(hold);
            return (Release::Done, Effects::default());
        }
        // A call under way for the head goes on by itself.
        self.give_up_for_head(state, hold.lease, mode)
    }

    /// Goes on after a writer: with the next one by the same grant, or with what the head wants by
    /// a new one.
    pub(super) fn write_is_over(
        &self,
        state: &mut State,
        mut hold: Hold,
        mode: ReleaseMode,
    ) -> (Release, Effects) {
        if state.run.may_go_on() && self.head_may_have(state, &hold) {
            let mut effects = Effects::default();
            hold.token = state.run.take();
            state.note_write(hold.token);
            state.serve_share(hold, &mut effects);
            return (Release::Done, effects);
        }
        self.give_up_for_head(state, hold.lease, mode)
    }
}
