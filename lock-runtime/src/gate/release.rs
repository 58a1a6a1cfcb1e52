//! The end of a grant: its release by the guard, its loss, and what follows. The provider's call is
//! in `release_call`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::effects::Effects;
use super::release_answer::{Answer, ReleaseMode, answer};
use super::slot::{Slot, SlotRef};
use super::state::{Phase, State};
use crate::clock::Timestamp;
use crate::end::GrantEnd;
use crate::error::{LockError, LockErrorKind};
use crate::lease::{Lease, LeaseOwner};
use crate::provider::Holder;
use crate::signal::Signal;
use crate::telemetry::spans;
use crate::{background, wake};

/// What follows a release.
pub(crate) enum Release {
    /// Nothing: no call of the provider was needed.
    Done,
    /// The provider's answer, which comes here.
    Asked(Answer),
    /// Nothing: the grant had ended before.
    NotHeld,
}

impl LeaseOwner for Slot {
    fn lease_lost(self: Arc<Self>, lease: &Lease) {
        let slot = SlotRef::new(self, lease.source());
        match slot.shared.is_some() {
            true => slot.hold_is_lost(lease),
            false => slot.lease_is_lost(lease),
        }
    }
}

impl SlotRef {
    /// Returns a reference to this slot for the provider that made the grant.
    pub(super) fn of(&self, lease: &Lease) -> Self {
        Self::new(Arc::clone(self), lease.source())
    }

    /// Ends the grant of this ticket, but not before its `min_hold` is over: passes it to the next
    /// waiter of this process, or back to the server.
    ///
    /// `is_lost` tells whether the lock was lost. It is called only if some guard of this slot has
    /// a `min_hold`, or was asked for the signal of its end.
    pub(crate) fn release(
        &self,
        ticket: u64,
        mode: ReleaseMode,
        is_lost: impl FnOnce() -> bool,
    ) -> Release {
        let mut guard = self.lock();
        if !guard.has_extras() {
            return self.release_at(guard, ticket, mode, None);
        }
        let extra = guard.rare().extras.remove(&ticket).unwrap_or_default();
        let lost = is_lost();
        let release = self.release_at(guard, ticket, mode, extra.keep_until);
        if let Some(ended) = extra.ended {
            ended.set(match lost {
                true => GrantEnd::Lost,
                false => GrantEnd::Released,
            });
        }
        release
    }

    /// Notes that the guard of a lost lease is gone, and so is the body that ran under it. From now
    /// on no caller of this process counts as the holder.
    pub(crate) fn guard_is_gone(&self, lease: &Lease) {
        let mut state = self.lock();
        let deferred = match &mut state.phase {
            Phase::Releasing { deferred, .. } => {
                deferred.take_if(|deferred| std::ptr::eq(&**deferred, lease))
            }
            _ => None,
        };
        drop(state);
        drop(deferred);
    }

    /// Gives back the grant of this ticket, which was not used.
    pub(crate) fn give_back_ticket(&self, ticket: u64) {
        let mut state = self.lock();
        state.note_unused(ticket);
        self.release_at(state, ticket, ReleaseMode::Confirmed, None);
    }

    /// Keeps the lock of this ticket for at least `min_hold` from now, even if it is released
    /// before.
    pub(crate) fn keep(&self, ticket: u64, min_hold: Duration) {
        if !min_hold.is_zero() {
            let until = Some(Timestamp::now() + min_hold);
            let mut state = self.lock();
            state.rare().extras.entry(ticket).or_default().keep_until = until;
        }
    }

    /// Returns the signal that is set when this ticket's grant ends.
    pub(crate) fn end_of(&self, ticket: u64) -> Arc<Signal<GrantEnd>> {
        let mut state = self.lock();
        let extra = state.rare().extras.entry(ticket).or_default();
        let ended = extra.ended.get_or_insert_with(|| Arc::new(Signal::new()));
        Arc::clone(ended)
    }

    /// Ends the grant of this ticket, but keeps the lock until `keep_until`.
    #[inline]
    pub(super) fn release_at(
        &self,
        mut guard: MutexGuard<'_, State>,
        ticket: u64,
        mode: ReleaseMode,
        keep_until: Option<Timestamp>,
    ) -> Release {
        let state = &mut *guard;
        let Phase::Held {
            ticket: holder,
            lease,
            ..
        } = &mut state.phase
        else {
            return Release::NotHeld;
        };
        if *holder != ticket {
            return Release::NotHeld;
        }
        let Some(lease) = lease else {
            if keep_until.is_none() && state.queue.is_empty() {
                self.is_busy.store(false, Ordering::Relaxed);
                // Forgotten for the reason that `hold_in_process` gives.
                std::mem::forget(std::mem::replace(&mut state.phase, Phase::Idle));
                return Release::Done;
            }
            return self.release_in_process(guard, keep_until);
        };
        let lost = lease.is_lost();
        if let Some(until) = keep_until.filter(|until| !lost && !until.has_passed()) {
            let (release, effects) = self.rest(state, mode, until);
            drop(guard);
            effects.happen();
            return release;
        }
        let lease = Arc::clone(lease);
        state.saw_holder = state.last_ticket;
        let told = lost.then(|| (Arc::clone(&lease), state.served.template));
        let (release, effects) = self.give_back(state, mode, lease);
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        if let Some((lease, template)) = told {
            lease.tell_of_loss(template);
        }
        release
    }

    /// Ends the grant of a lock of this process alone.
    fn release_in_process(
        &self,
        mut guard: MutexGuard<'_, State>,
        keep_until: Option<Timestamp>,
    ) -> Release {
        let state = &mut *guard;
        if keep_until.is_none()
            && self.first.ask().is_ok_and(|facts| facts.in_process)
            && let Some(waker) = state.pass_quickly()
        {
            let looked_at = state.be_looked_at();
            drop(guard);
            wake::one(waker);
            self.look_later(looked_at);
            return Release::Done;
        }
        let effects = if let Some(until) = keep_until.filter(|until| !until.has_passed()) {
            self.rest(state, ReleaseMode::Confirmed, until).1
        } else {
            state.saw_holder = state.last_ticket;
            self.pass_in_process(state)
        };
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        Release::Done
    }

    /// Passes the lease to the next waiter of this process, or gives it back to the server.
    pub(super) fn give_back(
        &self,
        state: &mut State,
        mode: ReleaseMode,
        lease: Arc<Lease>,
    ) -> (Release, Effects) {
        let lost = lease.is_lost();
        if !lost && state.may_pass(&lease, &self.first) {
            return (Release::Done, self.pass(state, Some(lease)));
        }
        lease.end();
        let passes_on = state
            .queue
            .front()
            .is_some_and(|head| lease.is_of(self.source_of(head)));
        if lost || !passes_on {
            let (answer, effects) = self.start_releasing(state, lease, mode, None);
            (Release::Asked(answer), effects)
        } else {
            (Release::Done, self.start_acquiring(state, Some(lease)))
        }
    }

    /// Frees a lock of this process alone: for the head of the queue, if there is one.
    pub(super) fn pass_in_process(&self, state: &mut State) -> Effects {
        let Some(head) = state.queue.front() else {
            self.is_busy.store(false, Ordering::Relaxed);
            state.set(Phase::Idle);
            return Effects::default();
        };
        let source = self.source_of(head);
        if source.ask().is_ok_and(|facts| facts.in_process) {
            return self.pass(state, None);
        }
        // A wrapper's waiter is served by a call of the wrapper.
        state.set(Phase::Idle);
        self.start_acquiring(state, None)
    }

    /// Gives the lock to the head of the queue, if there is one.
    pub(super) fn pass(&self, state: &mut State, lease: Option<Arc<Lease>>) -> Effects {
        state.pass(lease, || {
            self.error(LockErrorKind::Contended)
                .with_holder(Holder::here())
        })
    }

    /// Goes on without this lease, which has ended by itself: the process does not have the lock
    /// any more, whatever its guard does.
    pub(crate) fn lease_is_lost(&self, lost: &Lease) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.phase.is_of(lost) {
            return;
        }
        if !matches!(state.phase, Phase::Held { taken: true, .. }) {
            // No body runs, so the server need not keep other processes away.
            lost.leave();
        }
        let untaken = match state.phase {
            Phase::Held {
                taken: false,
                ticket,
                ..
            } => {
                state.note_unused(ticket);
                true
            }
            _ => false,
        };
        let lease = match state.enter(Phase::Idle) {
            Phase::Held { lease, .. } | Phase::Resting(lease, _) => lease,
            _ => None,
        };
        let Some(lease) = lease else {
            unreachable!("it was just there")
        };
        lease.end();
        // The server may still have the lock, since its deadline comes after ours.
        let mode = ReleaseMode::Confirmed;
        let (_, effects) = self.start_releasing(state, Arc::clone(&lease), mode, None);
        let template = state.served.template;
        drop(guard);
        effects.happen();
        if untaken {
            spans::not_taken(&self.name, self.source().name(), template);
        } else {
            lease.tell_of_loss(template);
        }
    }

    /// Has the provider release the lease, and after `pause` goes on with the next waiter.
    ///
    /// If the lock is kept on the server after its loss, the release waits until the guard is gone.
    pub(super) fn start_releasing(
        &self,
        state: &mut State,
        lease: Arc<Lease>,
        mode: ReleaseMode,
        pause: Option<Duration>,
    ) -> (Answer, Effects) {
        let (answers, answer) = answer(mode);
        let deferred = lease.is_retained().then(|| Arc::clone(&lease));
        let waits_for_guard = deferred.is_some();
        // The provider that made the grant releases it.
        let slot = self.of(&lease);
        let mut effects = Effects::default();
        if !waits_for_guard
            && pause.is_none()
            && let Some(calls) = lease.source().calls().cloned()
        {
            match background::count_next() {
                Ok(done) => {
                    state.enter(Phase::releasing(None));
                    self.look_at_call(state);
                    effects.run(calls.push(slot.grouped_release(lease, answers, done)));
                }
                Err(_) => {
                    state.enter(Phase::Idle);
                    effects.later(move || drop((lease, answers)));
                }
            }
            return (answer, effects);
        }
        let job = async move {
            if waits_for_guard {
                lease.wait_until_guard_gone().await;
                let mut state = slot.lock();
                let before = state.enter(Phase::releasing(None));
                slot.look_at_call(&mut state);
                drop(state);
                drop(before);
            }
            slot.finish_releasing(lease, pause, answers).await;
        };
        match background::run_next(job) {
            Ok(()) => {
                state.enter(Phase::releasing(deferred));
                self.look_at_call(state);
            }
            Err((_, job)) => {
                state.enter(Phase::Idle);
                effects.drop_job(job);
            }
        }
        (answer, effects)
    }

    /// Ends the grant that the slot holds, and fails its waiters. Does nothing to a lock of this
    /// process alone, which ends with the process.
    pub(crate) fn shut_down(&self) {
        let error = LockError::new(LockErrorKind::ProviderUnavailable)
            .with_name(self.name.clone())
            .with_detail("the process is shutting its locks down");
        if self.shared.is_some() {
            return self.shut_holds_down(&error);
        }
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut abandoned = None;
        let held = match &state.phase {
            Phase::Held { lease: None, .. } | Phase::Resting(None, _) => return,
            Phase::Held {
                lease: Some(lease), ..
            } => Some(Arc::clone(lease)),
            Phase::Resting(Some(_), end) => {
                end.notify_one();
                None
            }
            Phase::Acquiring(interest) => {
                abandoned = Some(interest.clone());
                None
            }
            Phase::Idle | Phase::Releasing { .. } => None,
        };
        let mut effects = state.fail(&error, |_| true);
        if let Some(interest) = abandoned {
            effects.abandon(interest);
        }
        drop(guard);
        effects.happen();
        if let Some(lease) = held {
            lease.shut_down();
        }
    }
}
