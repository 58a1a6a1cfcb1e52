//! The gate: one FIFO queue for each key that this process holds or waits for.
//!
//! Servers let one session, lease or connection take its own lock twice, so two tasks of one
//! process could both hold it; the gate lets only the head of its queue talk to the provider. It
//! also keeps the acquisition apart from whoever waits for it: the provider's call belongs to the
//! queue, so that a caller who goes away neither interrupts the call nor loses the process's place
//! on the server while others wait.
//!
//! A slot is in the table for as long as somebody refers to it: a guard, a waiter, a call that is
//! under way.

mod calls;
mod queue;
mod waiting;

use std::future::poll_fn;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::guard::FencingToken;
use crate::hold::Hold;
use crate::provider::{Interest, LockProvider, LockSpace};
use crate::table;
use crate::{LockError, LockErrorKind, LockName};
use queue::{Phase, State, Waiter};

pub(crate) use waiting::Acquire;

/// After this time, a release that is not answered is the provider's trouble.
const OVERDUE: Duration = Duration::from_secs(1);

/// One key of one lock space, and its queue.
pub(crate) struct Slot {
    pub(crate) space: LockSpace,
    pub(crate) hash: u64,
    pub(crate) name: LockName,
    pub(crate) provider: Arc<dyn LockProvider>,
    state: Mutex<State>,
}

/// What became of an arrival.
enum Arrival {
    Granted(Option<FencingToken>, u64),
    Queued(u64),
}

/// Keeps a slot in the table.
#[derive(Clone)]
pub(crate) struct SlotRef(Arc<Slot>);

/// How a release goes on.
pub(crate) enum Release {
    /// Done, without the provider.
    Done,
    /// The provider is being asked; its answer comes here.
    Asked(oneshot::Receiver<Result<(), LockError>>),
    /// The grant had ended before.
    NotHeld,
}

impl Slot {
    pub(crate) fn new(
        space: LockSpace,
        hash: u64,
        name: LockName,
        provider: Arc<dyn LockProvider>,
    ) -> Self {
        Self {
            space,
            hash,
            name,
            provider,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed in whole steps; a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody holds the key or waits for it, and no call is under way.
    #[cfg(feature = "testing")]
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        matches!(state.phase, Phase::Idle) && state.queue.is_empty()
    }

    /// The timeout of a waiter has passed: because somebody holds the lock, or because nobody can
    /// tell?
    fn timed_out(&self) -> LockError {
        let trouble = match &self.lock().phase {
            Phase::Acquiring(interest) => interest.trouble(),
            Phase::Releasing { since, kept: false } if (*since + OVERDUE).has_passed() => Some(
                LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail("the provider has not answered a release"),
            ),
            _ => None,
        };
        trouble
            .unwrap_or_else(|| LockErrorKind::TimedOut.into())
            .with_name(self.name.clone())
    }

    fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_name(self.name.clone())
    }
}

impl SlotRef {
    pub(crate) fn new(slot: Arc<Slot>) -> Self {
        Self(slot)
    }

    /// Takes the lock if it is free and needs nobody's answer; else queues, or is refused.
    fn arrive(&self, waits: bool, lease: Option<Duration>) -> Result<Arrival, LockError> {
        let mut state = self.lock();
        let state = &mut *state;
        let taken = match state.phase {
            Phase::Idle => false,
            Phase::Held { .. } => true,
            // A release, or an acquisition that nobody wants any more, is over soon.
            Phase::Acquiring(_) => !state.queue.is_empty(),
            Phase::Releasing { kept, .. } => kept || !state.queue.is_empty(),
        };
        if taken && !waits {
            return Err(self.error(LockErrorKind::Contended));
        }
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        if matches!(state.phase, Phase::Idle)
            && let Some(token) = self.provider.grant_in_process()
        {
            state.phase = Phase::Held {
                ticket,
                token: Some(token),
                hold: None,
            };
            return Ok(Arrival::Granted(Some(token), ticket));
        }
        state.queue.push_back(Waiter {
            ticket,
            waits,
            lease,
            waker: None,
        });
        match &state.phase {
            Phase::Idle => self.start_acquiring(state, None),
            Phase::Acquiring(interest) => interest.want_tokens(state.tokens_wanted()),
            Phase::Held { .. } | Phase::Releasing { .. } => {}
        }
        Ok(Arrival::Queued(ticket))
    }

    #[allow(clippy::type_complexity)]
    fn poll_ticket(
        &self,
        ticket: u64,
        context: &mut Context<'_>,
    ) -> Poll<Result<(Option<FencingToken>, Option<Arc<Hold>>), LockError>> {
        let mut state = self.lock();
        if let Phase::Held {
            ticket: holder,
            token,
            hold,
        } = &state.phase
            && *holder == ticket
        {
            return Poll::Ready(Ok((*token, hold.clone())));
        }
        if let Some(at) = state
            .failed
            .iter()
            .position(|(failed, _)| *failed == ticket)
        {
            return Poll::Ready(Err(state.failed.swap_remove(at).1));
        }
        match state.place(ticket) {
            Some(at) => {
                let waker = &mut state.queue[at].waker;
                if !waker
                    .as_ref()
                    .is_some_and(|waker| waker.will_wake(context.waker()))
                {
                    *waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
            // Granted, and lost before the waiter looked: nothing was done under it.
            None => Poll::Ready(Err(self
                .error(LockErrorKind::ProviderUnavailable)
                .with_detail("the grant had ended by itself before it could be used"))),
        }
    }

    /// Gives a ticket back, whatever became of it. The interest in an acquisition if that leaves one
    /// that nobody wants any more.
    fn leave(&self, ticket: u64) -> Option<Interest> {
        let mut state = self.lock();
        if let Some(at) = state.place(ticket) {
            state.queue.remove(at);
            return match &state.phase {
                Phase::Acquiring(interest) if state.queue.is_empty() => {
                    interest.abandon();
                    Some(interest.clone())
                }
                Phase::Acquiring(interest) => {
                    interest.want_tokens(state.tokens_wanted());
                    None
                }
                _ => None,
            };
        }
        state.failed.retain(|(failed, _)| *failed != ticket);
        drop(state);
        self.release(ticket);
        None
    }

    /// Resolves when no acquisition that nobody wants is under way.
    async fn withdrawn(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            match &state.phase {
                Phase::Acquiring(_) if state.queue.is_empty() => {
                    state.withdrawing.push(context.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        table::forget(self);
    }
}

impl Deref for SlotRef {
    type Target = Arc<Slot>;

    fn deref(&self) -> &Arc<Slot> {
        &self.0
    }
}
