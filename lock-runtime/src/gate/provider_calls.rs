//! What the gate asks of the provider.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::effects::Effects;
use super::queue::Waiter;
use super::release_answer::{Answer, Answers, answer};
use super::slot::{Slot, SlotRef};
use super::state::{Phase, State};
use crate::call::{Panicked, measured, of_grant};
use crate::clock::Timestamp;
use crate::end::GrantEnd;
use crate::error::{LockError, LockErrorKind};
use crate::future::{First, first_of};
use crate::lease::{Lease, LeaseOwner};
use crate::provider::{AcquireRequest, Grant};
use crate::signal::Signal;
use crate::source::Source;
use crate::telemetry::spans;
use crate::{background, wake};

/// What a provider without leases sees as the lease of a request.
pub(super) const ANY_LEASE: Duration = Duration::from_secs(30);
/// How many waiters may have a say in the lease of a grant that is to serve several.
const SERVED: usize = 32;
/// How long what a panic left behind may take to be given back before others go on.
const UNDOING: Duration = Duration::from_secs(1);

/// How a release goes on.
pub(crate) enum Release {
    /// Done, without the provider.
    Done,
    /// The provider is being asked; its answer comes here.
    Asked(Answer),
    /// The grant had ended before.
    NotHeld,
}

impl Slot {
    pub(super) fn source_of<'a>(&'a self, waiter: &'a Waiter) -> &'a Arc<Source> {
        waiter.source.as_ref().unwrap_or(&self.first)
    }

    /// The lease that a waiter's own call would ask for.
    pub(super) fn lease_of(&self, waiter: &Waiter) -> Duration {
        let default = self.source_of(waiter).capabilities().lease;
        waiter.lease.get().or(default).unwrap_or(ANY_LEASE)
    }

    /// The lease to ask for: the head's own, or a little more if that serves more waiters.
    fn lease_for(&self, state: &State, head: &Waiter) -> Duration {
        let own = self.lease_of(head);
        let source = self.source_of(head);
        if state.exactly || source.capabilities().lease.is_none() {
            return own;
        }
        let others = state.queue.iter().take(SERVED);
        others
            .filter(|other| self.source_of(other).is_like(source))
            .map(|other| self.lease_of(other))
            .filter(|lease| Lease::may_serve(*lease, own))
            .max()
            .unwrap_or(own)
    }
}

impl LeaseOwner for Slot {
    fn lease_lost(self: Arc<Self>, lease: &Lease) {
        SlotRef::new(self, lease.source()).lease_is_lost(lease);
    }
}

impl SlotRef {
    /// A reference for whoever made this grant.
    pub(super) fn of(&self, lease: &Lease) -> Self {
        Self::new(Arc::clone(self), lease.source())
    }

    /// Ends the grant of this ticket: passes it to the next waiter of this process, or to the
    /// server; not before its `min_hold` is over. `is_lost` says how it ended, if anybody asks.
    pub(crate) fn release(&self, ticket: u64, is_lost: impl FnOnce() -> bool) -> Release {
        let mut guard = self.lock();
        if guard.extras.is_empty() {
            return self.release_at(guard, ticket, None);
        }
        let extra = guard.extras.remove(&ticket).unwrap_or_default();
        let lost = is_lost();
        let release = self.release_at(guard, ticket, extra.keep_until);
        if let Some(ended) = extra.ended {
            ended.set(match lost {
                true => GrantEnd::Lost,
                false => GrantEnd::Released,
            });
        }
        release
    }

    /// The guard of a lost lease is gone, and so is what ran under it: nobody in this process has the
    /// lock any more.
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

    /// The grant of this ticket was not used.
    pub(crate) fn give_back_ticket(&self, ticket: u64) {
        self.release_at(self.lock(), ticket, None);
    }

    /// Keeps the lock of this ticket for so long from now, also if it is released before.
    pub(crate) fn keep(&self, ticket: u64, min_hold: Duration) {
        if !min_hold.is_zero() {
            let until = Some(Timestamp::now() + min_hold);
            self.lock().extras.entry(ticket).or_default().keep_until = until;
        }
    }

    /// What tells of the end of this ticket's grant.
    pub(crate) fn end_of(&self, ticket: u64) -> Arc<Signal<GrantEnd>> {
        let mut state = self.lock();
        let extra = state.extras.entry(ticket).or_default();
        let ended = extra.ended.get_or_insert_with(|| Arc::new(Signal::new()));
        Arc::clone(ended)
    }

    #[inline]
    pub(super) fn release_at(
        &self,
        mut guard: MutexGuard<'_, State>,
        ticket: u64,
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
                // As in `hold_in_process`.
                std::mem::forget(std::mem::replace(&mut state.phase, Phase::Idle));
                return Release::Done;
            }
            return self.release_in_process(guard, keep_until);
        };
        let lost = lease.is_lost();
        if let Some(until) = keep_until.filter(|until| !lost && !until.has_passed()) {
            let (release, effects) = self.rest(state, until);
            drop(guard);
            effects.happen();
            return release;
        }
        let lease = Arc::clone(lease);
        state.saw_holder = state.last_ticket;
        let told = lost.then(|| (Arc::clone(&lease), state.served.template));
        let (release, effects) = self.give_back(state, lease);
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        if let Some((lease, template)) = told {
            lease.tell_of_loss(template);
        }
        release
    }

    fn release_in_process(
        &self,
        mut guard: MutexGuard<'_, State>,
        keep_until: Option<Timestamp>,
    ) -> Release {
        let state = &mut *guard;
        let effects = if let Some(until) = keep_until.filter(|until| !until.has_passed()) {
            self.rest(state, until).1
        } else {
            state.saw_holder = state.last_ticket;
            self.pass(state, None)
        };
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        Release::Done
    }

    /// Lets a waiter of this process have the lease, or gives it back.
    pub(super) fn give_back(&self, state: &mut State, lease: Arc<Lease>) -> (Release, Effects) {
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
            let (answer, effects) = self.start_releasing(state, lease, None);
            (Release::Asked(answer), effects)
        } else {
            (Release::Done, self.start_acquiring(state, Some(lease)))
        }
    }

    pub(super) fn pass(&self, state: &mut State, lease: Option<Arc<Lease>>) -> Effects {
        state.pass(lease, || self.error(LockErrorKind::Contended))
    }

    /// The lease has ended by itself: the process has the lock no more, whatever its guard does.
    pub(crate) fn lease_is_lost(&self, lost: &Lease) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.phase.is_of(lost) {
            return;
        }
        if !matches!(state.phase, Phase::Held { taken: true, .. }) {
            // No body runs that others would have to be kept from.
            lost.leave();
        }
        let untaken = matches!(state.phase, Phase::Held { taken: false, .. });
        let lease = match state.enter(Phase::Idle) {
            Phase::Held { lease, .. } | Phase::Resting(lease, _) => lease,
            _ => None,
        };
        let Some(lease) = lease else {
            unreachable!("it was just there")
        };
        lease.end();
        // The server may think otherwise for a while, since our deadline comes before its own.
        let (_, effects) = self.start_releasing(state, Arc::clone(&lease), None);
        let template = state.served.template;
        drop(guard);
        effects.happen();
        if untaken {
            spans::not_taken(&self.name, self.source().name(), template);
        } else {
            lease.tell_of_loss(template);
        }
    }

    /// Asks the provider for the head of the queue, giving back `held` in the same step.
    pub(super) fn start_acquiring(&self, state: &mut State, held: Option<Arc<Lease>>) -> Effects {
        let Some(head) = state.queue.front() else {
            return Effects::default();
        };
        let (ticket, waits) = (head.ticket, head.waits);
        let asked = self.lease_for(state, head);
        let slot = self.on_behalf_of(head);
        state.exactly = false;
        let (request, interest) = match AcquireRequest::new(self.name.clone(), asked, waits) {
            Ok(made) => made,
            Err(error) => return self.fail_all(state, held, &error),
        };
        interest.want_tokens(state.tokens_wanted());
        let job = async move {
            let result = slot.ask(&request, held).await;
            slot.acquired(&request, ticket, result);
        };
        match background::run(job) {
            Ok(()) => {
                state.phase = Phase::Acquiring(interest);
                self.look_at_call(state);
                match state.sharers.is_empty() {
                    true => Effects::default(),
                    // They share the answer to this one now.
                    false => self.shares(state),
                }
            }
            Err((error, job)) => {
                let mut effects = self.fail_all(state, None, &error);
                effects.drop_job(job);
                effects
            }
        }
    }

    async fn ask(
        &self,
        request: &AcquireRequest,
        held: Option<Arc<Lease>>,
    ) -> Result<Grant, LockError> {
        let source = self.source();
        let says_what_it_sees = source.capabilities().reports_contention;
        if held.is_none() && request.waits() && !says_what_it_sees {
            // Asked first without waiting, it tells a lock that is held from a server that hangs.
            let (first, _) = AcquireRequest::new(self.name.clone(), request.lease(), false)?;
            match self.call(&first, None).await {
                Err(error) if error.kind() == LockErrorKind::Contended => {
                    request.report_contention();
                    if request.is_abandoned() {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
        let result = self.call(request, held.as_ref()).await;
        wake::survive(|| drop(held));
        result
    }

    /// One call; what it leaves behind by a panic is given back.
    async fn call(
        &self,
        request: &AcquireRequest,
        held: Option<&Arc<Lease>>,
    ) -> Result<Grant, LockError> {
        let source = self.source();
        let provider = &source.provider;
        let operation = if held.is_some() { "pass_on" } else { "acquire" };
        let answer = measured(source.name(), operation, async {
            match held {
                Some(lease) => provider.pass_on(lease.grant(), request).await,
                None => provider.acquire(request).await,
            }
        });
        match answer.await {
            Ok(answer) => answer,
            Err(Panicked) => {
                if let Some(lease) = held {
                    self.undo(lease.shared_grant()).await;
                }
                self.undo(Arc::new(Grant::new(request, Timestamp::now())))
                    .await;
                Err(Panicked.into())
            }
        }
    }

    /// Gives back what a call may have left that panicked. Where there is nothing, a provider finds
    /// that out.
    async fn undo(&self, grant: Arc<Grant>) {
        let slot = self.clone();
        let undoing = background::spawn_beside(async move {
            let source = slot.source();
            let release = async { source.provider.release(&grant).await };
            let _ = measured(source.name(), "release", release).await;
        });
        first_of(undoing, tokio::time::sleep(UNDOING)).await;
    }

    /// Releases the lease, and after `pause` goes on with whoever waits.
    pub(super) fn start_releasing(
        &self,
        state: &mut State,
        lease: Arc<Lease>,
        pause: Option<Duration>,
    ) -> (Answer, Effects) {
        let (answers, answer) = answer();
        let deferred = lease.is_retained().then(|| Arc::clone(&lease));
        let waits_for_guard = deferred.is_some();
        // Released by whoever made the grant.
        let slot = self.of(&lease);
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
        let mut effects = Effects::default();
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

    /// Has the provider release the lease. Others go on when it has, or when the server's lease has
    /// ended without an answer: then the call goes on beside them.
    async fn finish_releasing(&self, lease: Arc<Lease>, pause: Option<Duration>, answers: Answers) {
        let source = self.source();
        let was_lost = lease.is_lost();
        let end = lease.server_deadline();
        let result = {
            let release = async { source.provider.release(lease.grant()).await };
            let release = measured(source.name(), "release", release);
            let mut release = pin!(release);
            match first_of(release.as_mut(), tokio::time::sleep(end.remaining())).await {
                First::Left(released) => released,
                First::Right(()) => {
                    self.released();
                    self.answer(answers, Err(unanswered()), was_lost);
                    let _ = release.await;
                    return;
                }
            }
        };
        wake::survive(|| drop(lease));
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        self.released();
        let result = result.unwrap_or_else(|panicked| Err(panicked.into()));
        self.answer(answers, result.map_err(of_grant), was_lost);
    }

    fn answer(&self, answers: Answers, result: Result<(), LockError>, was_lost: bool) {
        // A precaution may well find that there is nothing left to release.
        answers.give(match result {
            Err(error) if !was_lost => Err(error.with_name(self.name.clone())),
            _ => Ok(()),
        });
    }

    pub(super) fn released(&self) {
        let mut state = self.lock();
        state.enter(Phase::Idle);
        let effects = self.start_acquiring(&mut state, None);
        drop(state);
        effects.happen();
    }

    /// The background thread could not even be asked.
    fn fail_all(&self, state: &mut State, held: Option<Arc<Lease>>, error: &LockError) -> Effects {
        state.enter(Phase::Idle);
        let mut effects = state.fail(&error.clone().with_name(self.name.clone()), |_| true);
        if let Some(lease) = held {
            effects.extend(self.start_releasing(state, lease, None).1);
        }
        effects
    }

    /// Ends what the slot holds and fails who waits for it. Locks of the process alone are left:
    /// they end with it.
    pub(crate) fn shut_down(&self) {
        let error = LockError::new(LockErrorKind::ProviderUnavailable)
            .with_name(self.name.clone())
            .with_detail("the process is shutting its locks down");
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

fn unanswered() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the release was not answered before the server's lease ended")
}
