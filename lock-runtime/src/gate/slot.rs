//! One key of one lock space, with its queue: arrival, a place, and leaving it.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use once_cell::sync::Lazy;

use super::effects::Effects;
use super::queue::Waiter;
use super::state::{Phase, State};
use crate::clock::{Span, Timestamp};
use crate::error::{LockError, LockErrorKind};
use crate::lease::Lease;
use crate::name::LockName;
use crate::provider::{Interest, LockSpace};
use crate::slot_table::SlotTable;
use crate::source::Source;
use crate::token::FencingToken;

/// After this time, a release that is not answered is the provider's trouble.
const OVERDUE: Duration = Duration::from_secs(1);

/// One key of one lock space, and its queue.
pub(crate) struct Slot {
    pub(crate) space: LockSpace,
    pub(crate) hash: u64,
    pub(crate) name: LockName,
    pub(super) first: Arc<Source>,
    /// A hint: whoever arrives now will probably have to wait.
    pub(crate) is_busy: AtomicBool,
    state: Mutex<State>,
}

/// Keeps a slot in the table, and says whose calls are made for it.
#[derive(Clone)]
pub(crate) struct SlotRef {
    pub(super) slot: Arc<Slot>,
    /// `None` for the provider that came first.
    other: Option<Arc<Source>>,
}

/// What became of an arrival.
pub(crate) enum Arrival {
    /// The lock was free, and nobody need be asked.
    Free(u64),
    /// A place in the queue, and when the caller's timeout passes.
    Queued(u64, Option<Timestamp>),
}

/// What a waiter finds when it looks.
pub(crate) enum Look {
    Granted(Option<FencingToken>, Option<Arc<Lease>>),
    /// The grant was not taken, or had ended before that; the place is gone.
    Gone,
}

/// What a caller wants.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) lease: Span,
    /// The longest wait; none for one without end. Zero tries once.
    pub(crate) timeout: Span,
    pub(crate) min_hold: Span,
    /// The attribute's name as written, or empty.
    pub(crate) template: &'static str,
}

impl Wanted {
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        !self.timeout.is_zero()
    }
}

/// Every slot of the process.
static SLOTS: Lazy<SlotTable<Slot>> = Lazy::new(SlotTable::default);

/// Returns the slot of this name in the provider's lock space, made if there is none.
///
/// # Errors
///
/// If the name is invalid, which it cannot be where there is a slot; or if the provider panics.
pub(crate) fn enter(source: &Arc<Source>, name: &LockName) -> Result<SlotRef, LockError> {
    let space = match source.ask() {
        Ok(facts) => facts.space,
        Err(error) => return Err(error.with_name(name.clone())),
    };
    let is_it = |slot: &Slot| slot.space == space && slot.name == *name;
    let slot = SLOTS.find_or_add(&(space, name), is_it, |hash| {
        name.validate()?;
        let slot = Slot::new(space, hash, name.clone(), Arc::clone(source));
        Ok::<_, LockError>(Arc::new(slot))
    })?;
    Ok(SlotRef::new(slot, source))
}

/// Returns every slot of the process.
pub(crate) fn all() -> Vec<SlotRef> {
    SLOTS.all().into_iter().map(SlotRef::any).collect()
}

/// Returns how many entries the table of slots has, those of slots that are going away included.
#[cfg(feature = "testing")]
pub(crate) fn entries() -> usize {
    SLOTS.len()
}

impl Slot {
    fn new(space: LockSpace, hash: u64, name: LockName, first: Arc<Source>) -> Self {
        Self {
            space,
            hash,
            name,
            first,
            is_busy: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed in whole steps; a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody holds the key or waits for it, and no call is under way.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        matches!(state.phase, Phase::Idle) && state.queue.is_empty()
    }

    /// Why a waiter whose timeout has passed did not get the lock: because somebody was seen to
    /// hold it, or because nobody can tell?
    pub(crate) fn timed_out(&self, ticket: u64, timeout: Duration) -> LockError {
        let state = self.lock();
        let trouble = match &state.phase {
            Phase::Acquiring(interest) => interest.trouble(),
            Phase::Releasing {
                since,
                deferred: None,
            } if (*since + OVERDUE).has_passed() => Some(
                LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail("the provider has not answered a release"),
            ),
            _ => None,
        };
        let saw_holder = state.sees_holder() || ticket <= state.saw_holder;
        let error = match (trouble, &state.trouble) {
            (Some(trouble), _) => trouble,
            (None, _) if saw_holder => LockErrorKind::TimedOut.into(),
            (None, Some(trouble)) => trouble.clone(),
            (None, None) => LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail(format!("no answer within {timeout:?}")),
        };
        error.with_name(self.name.clone())
    }

    pub(crate) fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_name(self.name.clone())
    }
}

impl SlotRef {
    /// A reference for this provider.
    #[inline]
    pub(crate) fn new(slot: Arc<Slot>, source: &Arc<Source>) -> Self {
        let other = (!Arc::ptr_eq(&slot.first, source)).then(|| Arc::clone(source));
        Self { slot, other }
    }

    /// A reference for whoever came first.
    pub(crate) fn any(slot: Arc<Slot>) -> Self {
        Self { slot, other: None }
    }

    /// The address of the slot, which no other one has meanwhile.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.slot).addr()
    }

    #[inline]
    pub(crate) fn source(&self) -> &Arc<Source> {
        match &self.other {
            Some(other) => other,
            None => &self.slot.first,
        }
    }

    /// A reference for who makes this waiter's calls.
    pub(super) fn on_behalf_of(&self, waiter: &Waiter) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
            other: waiter.source.clone(),
        }
    }

    /// Takes the lock if it is free and needs nobody's answer; else queues, or is refused.
    #[inline]
    pub(crate) fn arrive(
        &self,
        wanted: &Wanted,
        until: impl FnOnce() -> Option<Timestamp>,
        in_process: bool,
        waker: &mut Option<Waker>,
    ) -> Result<Arrival, LockError> {
        let waits = wanted.waits();
        let mut guard = self.lock();
        let state = &mut *guard;
        if self.first.is_closed() {
            drop(guard);
            return Err(self
                .error(LockErrorKind::ProviderUnavailable)
                .with_detail("a provider was registered at this moment; ask again"));
        }
        // Behind a call of this process, only what that has been told counts.
        let taken = state.phase.is_held()
            || state.rests()
            || (!state.queue.is_empty() && state.sees_holder());
        if taken && !waits {
            drop(guard);
            return Err(self.error(LockErrorKind::Contended));
        }
        if in_process && matches!(state.phase, Phase::Idle) {
            self.is_busy.store(true, Ordering::Relaxed);
            return Ok(Arrival::Free(state.hold_in_process()));
        }
        self.arrive_behind(guard, wanted, until(), waker)
    }

    /// Takes a place in the queue.
    fn arrive_behind(
        &self,
        mut guard: MutexGuard<'_, State>,
        wanted: &Wanted,
        until: Option<Timestamp>,
        waker: &mut Option<Waker>,
    ) -> Result<Arrival, LockError> {
        let state = &mut *guard;
        let waits = wanted.waits();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        // Who tries behind somebody else shares that one's answer.
        let has_a_turn = waits || state.queue.is_empty();
        let queue = match has_a_turn {
            true => &mut state.queue,
            false => &mut state.sharers,
        };
        let waiter = queue.push(ticket);
        waiter.waits = waits;
        waiter.lease = wanted.lease;
        waiter.until = until.unwrap_or(Timestamp::NONE);
        waiter.template = wanted.template;
        waiter.source.clone_from(&self.other);
        waiter.waker = waker.take();
        if waits && state.phase.is_held() {
            return Ok(Arrival::Queued(ticket, until));
        }
        let effects = match has_a_turn {
            true => self.arrived(state),
            false => self.shares(state),
        };
        drop(guard);
        effects.happen();
        Ok(Arrival::Queued(ticket, until))
    }

    /// Somebody has joined the queue.
    fn arrived(&self, state: &mut State) -> Effects {
        match &state.phase {
            Phase::Idle => self.start_acquiring(state, None),
            Phase::Acquiring(interest) => {
                interest.want_tokens(state.tokens_wanted());
                Effects::default()
            }
            _ => Effects::default(),
        }
    }

    /// Somebody who tries has joined those who share the answer to the head's call.
    pub(super) fn shares(&self, state: &mut State) -> Effects {
        if let Phase::Acquiring(interest) = &state.phase {
            let slot = Arc::downgrade(&self.slot);
            interest.when_contended(move || {
                if let Some(slot) = slot.upgrade() {
                    slot.contended();
                }
            });
        }
        // Reported between the look and the subscription.
        if state.sees_holder() {
            return state.fail_sharers(&self.error(LockErrorKind::Contended));
        }
        Effects::default()
    }

    /// Looks what has become of a ticket. `new` says that it has not been polled before.
    pub(crate) fn poll_ticket(
        &self,
        ticket: u64,
        new: bool,
        context: &Context<'_>,
    ) -> Poll<Result<Look, LockError>> {
        // Cloned before the lock and dropped after it, since both may run code of the user's.
        let mut waker = new.then(|| context.waker().clone());
        loop {
            let mut guard = self.lock();
            let state = &mut *guard;
            if let Phase::Held {
                ticket: holder,
                token,
                lease,
                taken,
            } = &mut state.phase
                && *holder == ticket
            {
                *taken = true;
                let granted = Look::Granted(*token, lease.clone());
                drop(guard);
                return Poll::Ready(Ok(granted));
            }
            if let Some(error) = state.take_error(ticket) {
                drop(guard);
                return Poll::Ready(Err(error));
            }
            let Some(waiter) = state.waiter(ticket) else {
                drop(guard);
                return Poll::Ready(Ok(Look::Gone));
            };
            let known = waiter.waker.as_ref();
            if known.is_some_and(|known| known.will_wake(context.waker())) {
                drop(guard);
                return Poll::Pending;
            }
            if let Some(waker) = waker.take() {
                let replaced = waiter.waker.replace(waker);
                drop(guard);
                drop(replaced);
                return Poll::Pending;
            }
            drop(guard);
            waker = Some(context.waker().clone());
        }
    }

    /// Gives a ticket back, whatever became of it. The interest in an acquisition if that leaves one
    /// that nobody wants any more.
    pub(crate) fn leave(&self, ticket: u64) -> Option<Interest> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut effects = Effects::default();
        let mut last = None;
        if let Some(waiter) = state.queue.remove(ticket) {
            effects.drop_later(waiter);
            match &state.phase {
                Phase::Acquiring(interest) if state.queue.is_empty() => {
                    effects.abandon(interest.clone());
                    last = Some(interest.clone());
                }
                Phase::Acquiring(interest) => interest.want_tokens(state.tokens_wanted()),
                _ => {}
            }
            if state.queue.is_empty() {
                // They have nobody's answer to share any more.
                std::mem::swap(&mut state.queue, &mut state.sharers);
            }
        } else if let Some(waiter) = state.sharers.remove(ticket) {
            effects.drop_later(waiter);
        } else if state.take_error(ticket).is_none() {
            drop(guard);
            self.give_back_ticket(ticket);
            return None;
        }
        drop(guard);
        effects.happen();
        last
    }
}

impl Slot {
    /// The server has named a holder to the call under way: whoever shares it is answered.
    fn contended(&self) {
        let mut state = self.lock();
        let effects = match state.sees_holder() {
            true => state.fail_sharers(&self.error(LockErrorKind::Contended)),
            false => Effects::default(),
        };
        drop(state);
        effects.happen();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        SLOTS.forget(self, self.hash);
    }
}

impl Deref for SlotRef {
    type Target = Arc<Slot>;

    fn deref(&self) -> &Arc<Slot> {
        &self.slot
    }
}
