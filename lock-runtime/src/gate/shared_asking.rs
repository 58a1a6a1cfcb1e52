//! The call that acquires for the head of a slot that may have several holders, and what follows
//! from its answer.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::acquisition::SERVED;
use super::effects::Effects;
use super::granted::{LATE_GRANTS, LATE_PAUSE};
use super::local_hand_over::{LocalHandOver, MOST_LOCAL_GRANTS};
use super::release_answer::ReleaseMode;
use super::shared_state::{Hold, Stalled, State, UnderWay, wants_as_much};
use super::slot::SlotRef;
use crate::background;
use crate::call::of_acquisition;
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::lease::Lease;
use crate::provider::{AcquireRequest, Grant, LockMode};
use crate::telemetry::spans;
use crate::token::FencingToken;

/// How many grants to ask for at once for each writer, while several stand next to each other.
const GRANTS_EACH: usize = 4;

impl State {
    /// Returns how many tokens the next grant should carry.
    pub(super) fn tokens_wanted(&self) -> NonZeroU32 {
        let most = MOST_LOCAL_GRANTS as usize / GRANTS_EACH;
        let writers = self.queue.iter().take(most);
        let writers = writers.take_while(|waiter| waiter.wish.mode == LockMode::Write);
        let tokens = match writers.count() {
            0 | 1 => 1,
            several => u32::try_from(several * GRANTS_EACH).unwrap_or(MOST_LOCAL_GRANTS),
        };
        NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN)
    }
}

impl SlotRef {
    /// Asks the provider for what the head of the queue wants. Gives `held` back in the same step.
    pub(super) fn ask_for_head(&self, state: &mut State, held: Option<Arc<Lease>>) -> Effects {
        let Some(head) = state.queue.front() else {
            return Effects::default();
        };
        let (ticket, waits, mode) = (head.ticket, head.waits, head.wish.mode);
        let asked = self.lease_for_some(state);
        let slot = self.on_behalf_of(head);
        state.exactly = false;
        let sent_at = Timestamp::now();
        let (request, interest) = match AcquireRequest::new(self.name.clone(), asked, waits) {
            Ok((request, interest)) => {
                let request = request.with_mode(mode).made_for(self.address());
                (request, interest)
            }
            Err(error) => return self.fail_everybody(state, held, &error),
        };
        interest.want_tokens(state.tokens_wanted());
        let lane = match slot.source().calls() {
            Some(calls) => match background::count() {
                Ok(done) => {
                    let calls = Arc::clone(calls);
                    calls.push(slot.grouped(ticket, request, held, done))
                }
                Err(error) => return self.fail_everybody(state, held, &error),
            },
            None => {
                let job = async move {
                    let result = slot.ask(&request, held).await;
                    slot.acquired(&request, ticket, result);
                };
                if let Err((error, job)) = background::run(job) {
                    let mut effects = self.fail_everybody(state, None, &error);
                    effects.drop_job(job);
                    return effects;
                }
                None
            }
        };
        state.call = Some(UnderWay::Acquire {
            mode,
            interest,
            sent_at,
        });
        self.look_at_shared_call(state);
        let mut effects = Effects::default();
        effects.run(lane);
        effects
    }

    /// Returns the lease to ask for: the head's own, or a little more if that serves others who
    /// want the same.
    fn lease_for_some(&self, state: &State) -> Duration {
        let Some(head) = state.queue.front() else {
            unreachable!("it is asked for the head")
        };
        let own = self.lease_of(head);
        let source = self.source_of(head);
        if state.exactly || source.capabilities().lease.is_none() {
            return own;
        }
        let others = state.queue.iter().take(SERVED);
        others
            .filter(|other| other.wish.mode == head.wish.mode)
            .filter(|other| self.source_of(other).is_like(source))
            .map(|other| self.lease_of(other))
            .filter(|lease| Lease::may_serve(*lease, own))
            .max()
            .unwrap_or(own)
    }

    /// Fails every waiter, since the call could not be started, and releases `held`.
    fn fail_everybody(
        &self,
        state: &mut State,
        held: Option<Arc<Lease>>,
        error: &LockError,
    ) -> Effects {
        let mut effects = state.fail(&error.clone().with_name(self.name.clone()), |_| true);
        if let Some(lease) = held {
            let mode = ReleaseMode::Confirmed;
            effects.extend(self.start_releasing_share(state, lease, mode).1);
        }
        effects
    }

    /// Acts on the provider's answer to a request that was made for this ticket.
    pub(super) fn acquired_shared(
        &self,
        request: &AcquireRequest,
        ticket: u64,
        result: Result<Grant, LockError>,
    ) {
        let may_refuse = !request.waits() || request.is_abandoned();
        let result =
            result.map_err(|error| of_acquisition(error, may_refuse).with_name(self.name.clone()));
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        state.note_holder();
        let result = match result {
            Ok(grant) if state.lingering > 0 && request.mode() == LockMode::Write => {
                // Bodies that read under a lost grant may still run.
                let request = request.same();
                state.stalled = Some(Box::new(Stalled {
                    other: self.other.clone(),
                    request,
                    ticket,
                    grant,
                }));
                return;
            }
            result => result,
        };
        let (interest, sent_at) = match state.call.take() {
            Some(UnderWay::Acquire {
                interest, sent_at, ..
            }) => (Some(interest), sent_at),
            _ => (None, Timestamp::NONE),
        };
        let mut effects = match result {
            Ok(grant) => self.share_granted(state, request, grant, sent_at),
            Err(error) if request.is_abandoned() => {
                let mut effects = Effects::default();
                effects.later(move || spans::abandoned_ended(&error));
                effects
            }
            Err(error) => self.share_refused(state, request, ticket, &error),
        };
        effects.extend(self.advance(state));
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        if let Some(interest) = interest {
            interest.end();
        }
        self.look_later(looked_at);
    }

    /// Gives the grant to the head of the queue, and to those who may share it, or gives it back.
    fn share_granted(
        &self,
        state: &mut State,
        request: &AcquireRequest,
        grant: Grant,
        sent_at: Timestamp,
    ) -> Effects {
        let mode = request.mode();
        let lease = Lease::new(grant, request.lease(), self.source(), Arc::clone(self) as _);
        if lease.is_lost() {
            return self.share_is_late(state, request, lease);
        }
        state.late = 0;
        state.trouble = None;
        let wanted = state.queue.front().is_some_and(|head| {
            head.wish.mode == mode && lease.serves(self.source_of(head), head.lease.get())
        });
        if !wanted || (self.is_the_lock() && !state.fits(mode)) {
            // Those who wanted this grant have left.
            return self
                .give_up_for_head(state, lease, ReleaseMode::Confirmed)
                .1;
        }
        let mut effects = Effects::default();
        let lease = lease.watch();
        let token = self.first_token(state, mode, &lease, &mut effects);
        let mut run = LocalHandOver::default();
        if let LockMode::Permits { .. } = mode {
            run.start_without_tokens();
            run.take();
        }
        let hold = Hold {
            lease,
            mode,
            token,
            shares: 0,
            open_until: match self.is_the_lock() {
                true => Timestamp::FAR_FUTURE,
                false => sent_at + LocalHandOver::LONGEST,
            },
            run,
            resting: None,
            template: "",
        };
        match mode {
            LockMode::Read => self.let_readers_in(state, hold, &mut effects),
            _ => state.serve_share(hold, &mut effects),
        }
        effects
    }

    /// Returns the first token of a grant, if it is above those that it must be above.
    pub(super) fn first_token(
        &self,
        state: &mut State,
        mode: LockMode,
        lease: &Arc<Lease>,
        effects: &mut Effects,
    ) -> Option<FencingToken> {
        let (grows, token) = match mode {
            LockMode::Write => {
                let hands_over = self.source().capabilities().local_hand_over;
                let grows = state.run.start(lease, hands_over);
                let token = state.run.take();
                state.note_write(token);
                (grows, token)
            }
            LockMode::Read | LockMode::Upgradeable => {
                let token = lease.grant().token();
                let grows = token.is_none() || token > state.highest_write;
                let token = token.filter(|_| grows);
                if let Some(token) = token {
                    state.run.note_token(token);
                }
                (grows, token)
            }
            _ => (true, None),
        };
        if !grows {
            let (slot, lease) = (self.clone(), Arc::clone(lease));
            effects.later(move || {
                spans::token_not_above(&slot.name, slot.source().name(), lease.grant().token());
            });
        }
        token
    }

    /// Releases a grant whose lease had ended when it arrived, and pauses before anything else is
    /// asked for. Fails the waiters if this happens again and again.
    fn share_is_late(
        &self,
        state: &mut State,
        request: &AcquireRequest,
        lease: Arc<Lease>,
    ) -> Effects {
        let error = LockError::new(LockErrorKind::ProviderUnavailable)
            .with_name(self.name.clone())
            .with_detail(format!(
                "the grant had ended when it arrived, {:?} after it was asked for",
                lease.grant().lease()
            ));
        let pause = LATE_PAUSE * (1 << state.late.min(4));
        state.late = state.late.saturating_add(1);
        let mut effects = Effects::default();
        if state.late == LATE_GRANTS {
            let (slot, error) = (self.clone(), error.clone());
            effects.later(move || spans::late(&slot.name, slot.source().name(), &error));
        }
        if state.late >= LATE_GRANTS {
            effects.extend(state.fail(&error, |_| true));
        } else if !request.waits() {
            effects.extend(state.fail(&error, |waiter| !waiter.waits));
        }
        state.trouble = Some(error);
        let slot = self.clone();
        let pausing = background::run(async move {
            tokio::time::sleep(pause).await;
            slot.has_paused();
        });
        match pausing {
            Ok(()) => state.paused = true,
            Err((_, job)) => effects.drop_job(job),
        }
        let mode = ReleaseMode::Confirmed;
        effects.extend(self.start_releasing_share(state, lease, mode).1);
        effects
    }

    fn has_paused(&self) {
        let mut state = self.shared().lock();
        state.paused = false;
        let effects = self.advance(&mut state);
        let looked_at = state.be_looked_at();
        drop(state);
        effects.happen();
        self.look_later(looked_at);
    }

    /// Fails the waiters that this error concerns.
    fn share_refused(
        &self,
        state: &mut State,
        request: &AcquireRequest,
        ticket: u64,
        error: &LockError,
    ) -> Effects {
        match error.kind() {
            // Callers that do not wait share the answer, unless they want less.
            LockErrorKind::Contended => {
                // The answer shows every ticket up to now that there is a holder.
                state.saw_holder = state.last_ticket;
                let asked = request.mode();
                state.fail(error, |waiter| {
                    !waiter.waits && wants_as_much(waiter.wish.mode, asked)
                })
            }
            LockErrorKind::Unsupported | LockErrorKind::InvalidConfig => {
                let asked_more = state.queue.front().is_some_and(|head| {
                    head.ticket == ticket && self.lease_of(head) != request.lease()
                });
                // A longer lease than the head's own was asked for, which other waiters wanted.
                if asked_more {
                    state.exactly = true;
                    return Effects::default();
                }
                // The error says nothing about waiters that ask for another lease or mode.
                state.fail(error, |waiter| {
                    self.is_served_by(waiter)
                        && self.lease_of(waiter) == request.lease()
                        && waiter.wish.mode == request.mode()
                })
            }
            _ => state.fail(error, |waiter| self.is_served_by(waiter)),
        }
    }
}
