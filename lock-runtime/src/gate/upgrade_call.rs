//! The provider's call that makes a writer of a reader, and what follows from its answer.

use std::sync::Arc;

use super::effects::Effects;
use super::release_answer::ReleaseMode;
use super::shared_state::{Hold, State, key};
use super::slot::SlotRef;
use super::upgrade_state::{Caller, Upgrade};
use crate::background;
use crate::call::{Panicked, measured, of_acquisition};
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::lease::Lease;
use crate::provider::{AcquireRequest, Grant, LockMode};

const TOO_LATE: &str = "the server made the writer of this reader when it had given that up";

impl State {
    /// Tells whether the provider is being asked for an upgrade, and has named nobody in its way.
    pub(super) fn asks_to_upgrade(&self) -> bool {
        let call = self
            .upgrade
            .as_ref()
            .and_then(|upgrade| upgrade.call.as_ref());
        call.is_some_and(|interest| !interest.is_contended())
    }

    /// Tells whether others of this process read beside the one who upgrades.
    pub(super) fn others_read(&self, lease: Option<&Arc<Lease>>) -> bool {
        let own = lease.map(key);
        let mut others = self.holds.iter().filter(|(key, _)| Some(**key) != own);
        self.inside.readers > 0 || others.any(|(_, hold)| hold.shares > 0)
    }

    /// Tells whether nothing is held in this process but the reader who upgrades.
    fn fits_upgrade(&self, lease: Option<&Arc<Lease>>) -> bool {
        let own = usize::from(lease.is_some());
        self.inside.readers == 0 && self.holds.len() == own && self.lingering == 0
    }
}

impl SlotRef {
    /// Goes on with an upgrade that waits: becomes the writer inside, or asks the provider.
    pub(super) fn advance_upgrade(&self, state: &mut State) -> Effects {
        let mut effects = Effects::default();
        let Some(upgrade) = &state.upgrade else {
            return effects;
        };
        if upgrade.call.is_some() || !matches!(upgrade.caller, Caller::Waits(_)) {
            return effects;
        }
        let lease = upgrade.lease.clone();
        let fits = state.fits_upgrade(lease.as_ref());
        let others_read = state.others_read(lease.as_ref());
        let goes_on = match upgrade.waits && lease.is_some() && !self.is_the_lock() {
            true => true,
            // One that only tries must not meet a reader of this process who is on the way out.
            false => fits && state.releasing == 0,
        };
        if let Some(upgrade) = &mut state.upgrade {
            upgrade.saw_readers |= others_read;
        }
        match lease {
            _ if !goes_on => {}
            None => {
                state.inside.upgradeable = false;
                state.inside.writes = true;
                if let Some(upgrade) = &mut state.upgrade {
                    effects.wake(upgrade.answer(Ok((None, None))));
                }
            }
            Some(lease) => effects.extend(self.ask_to_upgrade(state, lease)),
        }
        effects
    }

    /// Asks the provider to make the writer of the reader with this lease.
    fn ask_to_upgrade(&self, state: &mut State, lease: Arc<Lease>) -> Effects {
        let mut effects = Effects::default();
        let tokens = state.tokens_wanted();
        let Some(upgrade) = &mut state.upgrade else {
            return effects;
        };
        let asked = AcquireRequest::new(self.name.clone(), lease.lease_asked(), upgrade.waits);
        let (request, interest) = match asked {
            Ok((request, interest)) => {
                let request = request.with_mode(LockMode::Write);
                (request.made_for(self.address()), interest)
            }
            Err(error) => {
                lease.upgrade_ended();
                effects.wake(upgrade.answer(Err(error.with_name(self.name.clone()))));
                return effects;
            }
        };
        interest.want_tokens(tokens);
        let (slot, reader) = (self.of(&lease), Arc::clone(&lease));
        let job = async move {
            let answer = slot.call_upgrade(&request, &reader).await;
            slot.upgrade_answered(&request, answer);
        };
        match background::run(job) {
            Ok(()) => {
                upgrade.call = Some(interest);
                self.look_at_shared_call(state);
            }
            Err((error, job)) => {
                lease.upgrade_ended();
                effects.wake(upgrade.answer(Err(error.with_name(self.name.clone()))));
                effects.drop_job(job);
            }
        }
        effects
    }

    /// Makes the calls of one upgrade, and returns the answer.
    async fn call_upgrade(
        &self,
        request: &AcquireRequest,
        lease: &Lease,
    ) -> Result<Grant, LockError> {
        if request.waits() && !self.source().capabilities().reports_contention {
            // A first call that does not wait tells readers in the way from a server that hangs.
            let (first, _) = AcquireRequest::new(self.name.clone(), request.lease(), false)?;
            let first = first.with_mode(LockMode::Write).made_for(self.address());
            match self.call_upgrade_once(&first, lease).await {
                Err(error) if error.kind() == LockErrorKind::Contended => {
                    request.report_contention();
                    if request.is_abandoned() {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
        self.call_upgrade_once(request, lease).await
    }

    /// Makes one call. If it panics, the writer that it may have made is released.
    async fn call_upgrade_once(
        &self,
        request: &AcquireRequest,
        lease: &Lease,
    ) -> Result<Grant, LockError> {
        let source = self.source();
        let call = async { source.provider.upgrade(lease.grant(), request).await };
        match measured(source.name(), "upgrade", call).await {
            Ok(answer) => answer,
            Err(Panicked) => {
                let left = Grant::new(request, Timestamp::now());
                self.undo(Arc::new(left)).await;
                Err(Panicked.into())
            }
        }
    }

    /// Acts on the provider's answer to an upgrade.
    pub(super) fn upgrade_answered(
        &self,
        request: &AcquireRequest,
        answer: Result<Grant, LockError>,
    ) {
        let may_refuse = !request.waits() || request.is_abandoned();
        let answer = answer.map_err(|error| match error.kind() {
            LockErrorKind::Lost => error,
            _ => of_acquisition(error, may_refuse),
        });
        let answer = answer.map_err(|error| error.with_name(self.name.clone()));
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        state.note_holder();
        let Some(mut upgrade) = state.upgrade.take() else {
            unreachable!("it stays until its call is answered")
        };
        let answer = match answer {
            Ok(grant) if state.lingering > 0 => {
                // Bodies that read under a lost grant may still run.
                upgrade.stalled = Some((request.same(), grant));
                state.upgrade = Some(upgrade);
                return;
            }
            answer => answer,
        };
        let ended = upgrade.call.take();
        let Some(lease) = upgrade.lease.clone() else {
            unreachable!("a lock of this process alone has no call")
        };
        lease.upgrade_ended();
        let mut effects = match answer {
            Ok(grant) => self.has_upgraded(state, &mut upgrade, &lease, request, grant),
            Err(error) => self.has_not_upgraded(state, &mut upgrade, &lease, error),
        };
        if let Caller::Has(_) = upgrade.caller {
            state.upgrade = Some(upgrade);
        }
        effects.extend(self.advance(state));
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        // The next upgrade may wait for that.
        if let Some(interest) = ended {
            interest.end();
        }
        self.look_later(looked_at);
    }

    /// Puts the writer's grant in the place of the reader's, or gives it back if nobody wants it.
    fn has_upgraded(
        &self,
        state: &mut State,
        upgrade: &mut Upgrade,
        old: &Arc<Lease>,
        request: &AcquireRequest,
        grant: Grant,
    ) -> Effects {
        let mut effects = Effects::default();
        let lease = Lease::new(grant, request.lease(), self.source(), Arc::clone(self) as _);
        let waits = matches!(upgrade.caller, Caller::Waits(_));
        let has_left = matches!(upgrade.caller, Caller::Left);
        let held = match (waits || has_left) && !old.is_lost() && !lease.is_lost() {
            true => state.take_hold(key(old)),
            false => None,
        };
        let Some(held) = held else {
            // The reader's own grant is over: the server has put this one in its place.
            if state.holds.contains_key(&key(old)) {
                let old = Arc::clone(old);
                effects.later(move || old.lose(TOO_LATE));
            }
            effects.wake(upgrade.answer(Err(old.loss())));
            effects.extend(self.give_back_upgrade(state, upgrade, lease));
            return effects;
        };
        old.end();
        if has_left {
            effects.extend(self.give_back_upgrade(state, upgrade, lease));
            return effects;
        }
        let lease = lease.watch();
        let token = self.first_token(state, LockMode::Write, &lease, &mut effects);
        lease.passed_to(0);
        state.keep(Hold {
            lease: Arc::clone(&lease),
            mode: LockMode::Write,
            token,
            open_until: Timestamp::NONE,
            ..held
        });
        effects.wake(upgrade.answer(Ok((token, Some(lease)))));
        effects
    }

    /// Leaves the reader what it was, or gives it back if it is gone.
    fn has_not_upgraded(
        &self,
        state: &mut State,
        upgrade: &mut Upgrade,
        lease: &Arc<Lease>,
        error: LockError,
    ) -> Effects {
        let mut effects = Effects::default();
        if let Caller::Left = upgrade.caller {
            if let Some(hold) = state.take_hold(key(lease)) {
                hold.lease.end();
                effects.extend(self.give_back_upgrade(state, upgrade, hold.lease));
            }
            return effects;
        }
        if error.kind() == LockErrorKind::Lost {
            let (lease, error) = (Arc::clone(lease), error.clone());
            effects.later(move || lease.lose_with(error));
        }
        let error = match lease.is_lost() {
            true => lease.loss(),
            false => error,
        };
        effects.wake(upgrade.answer(Err(error)));
        effects
    }

    /// Releases what is left of an upgrade, for whoever waits for that.
    fn give_back_upgrade(
        &self,
        state: &mut State,
        upgrade: &mut Upgrade,
        lease: Arc<Lease>,
    ) -> Effects {
        match upgrade.release.take() {
            Some(answers) => self.release_share_to(state, lease, answers),
            None => {
                let (_, effects) = self.start_releasing_share(state, lease, ReleaseMode::Confirmed);
                effects
            }
        }
    }
}
