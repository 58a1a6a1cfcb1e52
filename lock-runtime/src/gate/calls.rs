//! What the gate asks of the provider, and what follows from the answers.

use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::oneshot;

use super::queue::{Phase, State};
use super::{Release, SlotRef};
use crate::hold::Hold;
use crate::keeper;
use crate::provider::{AcquireRequest, Grant};
use crate::{LockError, LockErrorKind};

/// What a provider without leases sees as the lease of a request.
const ANY_LEASE: Duration = Duration::from_secs(30);

impl SlotRef {
    /// Ends the grant of this ticket: passes it to the next waiter of this process, or to the
    /// server.
    pub(crate) fn release(&self, ticket: u64) -> Release {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !matches!(state.phase, Phase::Held { ticket: holder, .. } if holder == ticket) {
            return Release::NotHeld;
        }
        let Phase::Held { hold, .. } = mem::take(&mut state.phase) else {
            unreachable!("just looked")
        };
        let Some(hold) = hold else {
            let woken = self.pass_in_process(state);
            drop(guard);
            wake(woken);
            return Release::Done;
        };
        if !hold.is_lost() && state.may_pass(&hold) {
            let woken = state.pass(hold);
            drop(guard);
            wake(woken);
            return Release::Done;
        }
        hold.end();
        if state.queue.is_empty() || hold.is_lost() {
            Release::Asked(self.start_releasing(state, hold))
        } else {
            self.start_acquiring(state, Some(hold));
            Release::Done
        }
    }

    /// The hold has ended by itself: the process has the lock no more, whatever its guard does.
    pub(crate) fn hold_lost(&self, lost: &Hold) {
        let mut state = self.lock();
        if !matches!(&state.phase, Phase::Held { hold: Some(hold), .. } if std::ptr::eq(&**hold, lost))
        {
            return;
        }
        let Phase::Held {
            hold: Some(hold), ..
        } = mem::take(&mut state.phase)
        else {
            unreachable!("just looked")
        };
        hold.end();
        // The server may think otherwise for a while, since our deadline comes before its own.
        self.start_releasing(&mut state, hold);
    }

    fn pass_in_process(&self, state: &mut State) -> Option<Waker> {
        let next = state.queue.pop_front()?;
        state.phase = Phase::Held {
            ticket: next.ticket,
            token: self.provider.grant_in_process(),
            hold: None,
        };
        next.waker
    }

    /// Asks the provider for the head of the queue, giving back `held` in the same step.
    pub(super) fn start_acquiring(&self, state: &mut State, held: Option<Arc<Hold>>) {
        let Some(head) = state.queue.front() else {
            return;
        };
        let (waits, lease) = (head.waits, head.lease);
        let ticket = head.ticket;
        let asked = lease
            .or(self.provider.capabilities().lease)
            .unwrap_or(ANY_LEASE);
        let (request, interest) = match AcquireRequest::new(self.name.clone(), asked, waits) {
            Ok(made) => made,
            Err(error) => return self.fail_all(state, held, &error),
        };
        interest.want_tokens(state.tokens_wanted());
        let slot = self.clone();
        let job = async move {
            let provider = &slot.provider;
            let result = keeper::caught(async {
                match &held {
                    Some(hold) => provider.pass_on(hold.grant(), &request).await,
                    None => provider.acquire(&request).await,
                }
            })
            .await;
            keeper::survive(|| drop(held));
            slot.acquired(&request, ticket, lease, result);
        };
        match keeper::run(job) {
            Ok(()) => state.phase = Phase::Acquiring(interest),
            Err(error) => self.fail_all(state, None, &error),
        }
    }

    fn start_releasing(
        &self,
        state: &mut State,
        hold: Arc<Hold>,
    ) -> oneshot::Receiver<Result<(), LockError>> {
        let (answer, answered) = oneshot::channel();
        let slot = self.clone();
        let kept = hold.is_kept();
        let job = async move {
            if kept {
                hold.gone().await;
                slot.lock().phase = Phase::releasing(false);
            }
            let was_lost = hold.is_lost();
            let release = async { slot.provider.release(hold.grant()).await };
            let result = keeper::caught(release).await;
            keeper::survive(|| drop(hold));
            slot.released();
            // Nobody listens where a guard was dropped.
            let result = result.map_err(|error| error.with_name(slot.name.clone()));
            // A precaution may well find that there is nothing left to release.
            if let Err(Err(error)) = answer.send(result)
                && !was_lost
            {
                crate::observe::release_failed(&error);
            }
        };
        state.phase = match keeper::run(job) {
            Ok(()) => Phase::releasing(kept),
            Err(_) => Phase::Idle,
        };
        answered
    }

    fn released(&self) {
        let mut state = self.lock();
        state.phase = Phase::Idle;
        self.start_acquiring(&mut state, None);
    }

    fn acquired(
        &self,
        request: &AcquireRequest,
        ticket: u64,
        lease: Option<Duration>,
        result: Result<Grant, LockError>,
    ) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut woken = mem::take(&mut state.withdrawing);
        state.phase = Phase::Idle;
        let still_first = state
            .queue
            .front()
            .is_some_and(|head| head.ticket == ticket);
        match result {
            Ok(grant) => {
                let hold = Hold::new(grant, lease, self);
                let wanted = state.queue.front().is_some_and(|head| head.lease == lease);
                if !wanted || hold.is_lost() {
                    // Nobody is left who wanted this one, or it took longer than it lasts.
                    if wanted && !request.waits() {
                        let late = self
                            .error(LockErrorKind::ProviderUnavailable)
                            .with_detail("the grant had ended by itself when it arrived");
                        woken.extend(state.fail_first(late));
                    }
                    self.start_releasing(state, hold);
                } else {
                    let hold = hold.watch();
                    state
                        .run
                        .start(&hold, self.provider.capabilities().local_hand_over);
                    woken.extend(state.pass(hold));
                }
            }
            Err(error) if error.kind() == LockErrorKind::Contended && !request.waits() => {
                if still_first {
                    woken.extend(state.fail_first(error.with_name(self.name.clone())));
                }
                self.start_acquiring(state, None);
            }
            Err(error) if request.is_abandoned() => {
                tracing::debug!(name = %self.name, %error, "an abandoned acquisition ended");
                self.start_acquiring(state, None);
            }
            Err(error) => {
                // What was wrong with the lease asked for says nothing to who asked for another.
                let of_request = matches!(
                    error.kind(),
                    LockErrorKind::Unsupported | LockErrorKind::InvalidConfig
                );
                let error = error.with_name(self.name.clone());
                woken.extend(state.fail(&error, |waiter| !of_request || waiter.lease == lease));
                self.start_acquiring(state, None);
            }
        }
        drop(guard);
        wake(woken);
    }

    /// The keeper could not even be asked.
    fn fail_all(&self, state: &mut State, held: Option<Arc<Hold>>, error: &LockError) {
        state.phase = Phase::Idle;
        let mut woken = Vec::new();
        woken.extend(state.fail(&error.clone().with_name(self.name.clone()), |_| true));
        wake(woken);
        if let Some(hold) = held {
            self.start_releasing(state, hold);
        }
    }

    /// Ends what the slot holds and fails who waits for it. Locks of the process alone are left:
    /// they end with it.
    pub(crate) fn shut_down(&self) {
        let error = LockError::new(LockErrorKind::ProviderUnavailable)
            .with_name(self.name.clone())
            .with_detail("the process is shutting its locks down");
        let mut guard = self.lock();
        let state = &mut *guard;
        let held = match &state.phase {
            Phase::Held { hold: None, .. } => return,
            Phase::Held {
                hold: Some(hold), ..
            } => Some(hold.clone()),
            Phase::Acquiring(interest) => {
                interest.abandon();
                None
            }
            Phase::Idle | Phase::Releasing { .. } => None,
        };
        let mut woken = Vec::new();
        woken.extend(state.fail(&error, |_| true));
        drop(guard);
        wake(woken);
        if let Some(hold) = held {
            hold.shut_down();
        }
    }
}

fn wake(woken: impl IntoIterator<Item = Waker>) {
    for waker in woken {
        waker.wake();
    }
}
