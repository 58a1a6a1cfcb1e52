//! What follows from the provider's answer to an acquisition.

use std::sync::Arc;
use std::time::Duration;

use super::effects::Effects;
use super::queue::Waiter;
use super::release_answer::ReleaseMode;
use super::slot::SlotRef;
use super::state::{Phase, State};
use crate::call::of_acquisition;
use crate::error::{LockError, LockErrorKind};
use crate::lease::Lease;
use crate::provider::{AcquireRequest, Grant};
use crate::telemetry::spans;

/// After this many grants in a row that had ended when they arrived, all waiters fail.
pub(super) const LATE_GRANTS: u32 = 3;
/// The pause after the first of those grants; it doubles after each further one.
pub(super) const LATE_PAUSE: Duration = Duration::from_millis(50);

impl SlotRef {
    /// Acts on the provider's answer to a request that was made for this ticket.
    pub(super) fn acquired(
        &self,
        request: &AcquireRequest,
        ticket: u64,
        result: Result<Grant, LockError>,
    ) {
        if self.shared.is_some() {
            return self.acquired_shared(request, ticket, result);
        }
        let may_refuse = !request.waits() || request.is_abandoned();
        let result =
            result.map_err(|error| of_acquisition(error, may_refuse).with_name(self.name.clone()));
        let mut guard = self.lock();
        let state = &mut *guard;
        let interest = match state.enter(Phase::Idle) {
            Phase::Acquiring(interest) => Some(interest),
            _ => None,
        };
        let effects = match result {
            Ok(grant) => self.granted(state, request, grant),
            Err(error) if request.is_abandoned() => {
                let mut effects = self.start_acquiring(state, None);
                effects.later(move || spans::abandoned_ended(&error));
                effects
            }
            Err(error) => self.refused(state, request, ticket, &error),
        };
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        if let Some(interest) = interest {
            interest.end();
        }
        self.look_later(looked_at);
    }

    /// Gives the grant to the head of the queue, or releases it.
    fn granted(&self, state: &mut State, request: &AcquireRequest, grant: Grant) -> Effects {
        let lease = Lease::new(grant, request.lease(), self.source(), Arc::clone(self) as _);
        if lease.is_lost() {
            return self.late(state, request, lease);
        }
        let wanted = state
            .queue
            .front()
            .is_some_and(|head| lease.serves(self.source_of(head), head.lease.get()));
        if !wanted {
            // The waiters that wanted this grant have left.
            return self
                .start_releasing(state, lease, ReleaseMode::Confirmed, None)
                .1;
        }
        state.late = 0;
        state.trouble = None;
        let hands_over = self.source().capabilities().local_hand_over;
        let grows = state.rare().local.start(&lease, hands_over);
        let mut effects = self.pass(state, Some(Arc::clone(&lease).watch()));
        if !grows {
            let slot = self.clone();
            effects.later(move || {
                spans::token_not_above(&slot.name, slot.source().name(), lease.grant().token());
            });
        }
        effects
    }

    /// Releases a grant whose lease had ended when it arrived, and tries again after a pause. Fails
    /// the waiters if this happens again and again.
    fn late(&self, state: &mut State, request: &AcquireRequest, lease: Arc<Lease>) -> Effects {
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
        let (_, releasing) =
            self.start_releasing(state, lease, ReleaseMode::Confirmed, Some(pause));
        effects.extend(releasing);
        effects
    }

    /// Fails the waiters that this error concerns, and asks again for the others.
    fn refused(
        &self,
        state: &mut State,
        request: &AcquireRequest,
        ticket: u64,
        error: &LockError,
    ) -> Effects {
        let mut effects = match error.kind() {
            // All callers that do not wait share the answer.
            LockErrorKind::Contended => {
                // The answer shows every ticket up to now that there is a holder.
                state.saw_holder = state.last_ticket;
                state.fail(error, |waiter| !waiter.waits)
            }
            LockErrorKind::Unsupported | LockErrorKind::InvalidConfig => {
                let asked_more = state.queue.front().is_some_and(|head| {
                    head.ticket == ticket && self.lease_of(head) != request.lease()
                });
                // A longer lease than the head's own was asked for, which other waiters wanted.
                if asked_more {
                    state.exactly = true;
                    Effects::default()
                } else {
                    // The error says nothing about waiters that ask for another lease.
                    state.fail(error, |waiter| {
                        self.is_served_by(waiter) && self.lease_of(waiter) == request.lease()
                    })
                }
            }
            _ => state.fail(error, |waiter| self.is_served_by(waiter)),
        };
        effects.extend(self.start_acquiring(state, None));
        effects
    }

    /// Tells whether this slot's provider may make the waiter's calls.
    pub(super) fn is_served_by<W>(&self, waiter: &Waiter<W>) -> bool {
        self.source_of(waiter).is_like(self.source())
    }
}
