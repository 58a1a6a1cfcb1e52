//! `Slot`: one key of one lock space, with its queue. How callers arrive, wait and leave.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use once_cell::sync::Lazy;

use super::effects::Effects;
use super::queue::Waiter;
use super::release_answer::ReleaseMode;
use super::shared_state::Shared;
use super::state::{Phase, State};
use crate::clock::{Span, Timestamp};
use crate::error::{LockError, LockErrorKind};
use crate::lease::Lease;
use crate::name::LockName;
use crate::provider::{Interest, LockKind, LockSpace};
use crate::slot_table::SlotTable;
use crate::source::Source;
use crate::token::FencingToken;

/// After this time, a release that is not answered counts as a failure of the provider.
pub(super) const OVERDUE: Duration = Duration::from_secs(1);

/// One key of one lock space, and its queue.
pub(crate) struct Slot {
    pub(crate) space: LockSpace,
    pub(crate) hash: u64,
    pub(crate) name: LockName,
    /// Which primitive the key is. All that follows from another one than a mutex is in `shared`.
    pub(super) kind: LockKind,
    /// The provider for which the slot was made. Others of the same lock space may use it too.
    pub(super) first: Arc<Source>,
    /// A hint that a caller which arrives now will probably have to wait.
    pub(crate) is_busy: AtomicBool,
    /// The state of a mutex.
    state: Mutex<State>,
    /// The state of every other kind. Boxed, since most slots are mutexes.
    pub(super) shared: Option<Box<Shared>>,
}

/// A reference that keeps a slot in the table, and the provider that makes the calls for it.
#[derive(Clone)]
pub(crate) struct SlotRef {
    pub(super) slot: Arc<Slot>,
    /// The provider, or `None` for the slot's first one.
    pub(super) other: Option<Arc<Source>>,
}

/// What a caller gets when it arrives.
pub(crate) enum Arrival<T = u64> {
    /// The lock: it was free, and no provider need be asked. A mutex comes with its ticket.
    Free(T),
    /// A ticket for a place in the queue.
    Queued(u64),
}

/// What a waiter finds when it looks at its place.
pub(crate) enum Look {
    /// The lock. The lease is `None` for a lock of this process alone.
    Granted(Option<FencingToken>, Option<Arc<Lease>>),
    /// No place any more: the grant was not taken in time, or had ended before that.
    Gone,
}

/// What a caller wants.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) lease: Span,
    /// The longest wait; no span stands for a wait without end. Zero tries once.
    pub(crate) timeout: Span,
    pub(crate) min_hold: Span,
    pub(crate) release: ReleaseMode,
    /// The name as the attribute's user wrote it; empty without the attribute.
    pub(crate) template: &'static str,
    /// Whether metrics count it. Of several locks only the whole is counted.
    pub(crate) measured: bool,
}

impl Wanted {
    /// Tells whether the caller waits for a lock that another holder has.
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        !self.timeout.is_zero()
    }

    /// Notes at a new place in the queue what its caller wants, and when its time is up.
    #[inline]
    pub(super) fn describe<W>(&self, waiter: &mut Waiter<W>, until: Timestamp) {
        waiter.waits = self.waits();
        waiter.lease = self.lease;
        waiter.until = until;
        waiter.template = self.template;
    }
}

/// Every slot of the process.
static SLOTS: Lazy<SlotTable<Slot>> = Lazy::new(SlotTable::default);

/// Returns the slot of this name in the provider's lock space, made if there is none.
///
/// # Errors
///
/// If the name is invalid or in use as another kind of lock, or if the provider panics. The name is
/// checked only where there is no slot yet.
pub(crate) fn enter(
    source: &Arc<Source>,
    name: &LockName,
    kind: LockKind,
) -> Result<SlotRef, LockError> {
    let space = match source.ask() {
        Ok(facts) => facts.space,
        Err(error) => return Err(error.with_name(name.clone())),
    };
    let is_it = |slot: &Slot| slot.space == space && slot.name == *name;
    let slot = SLOTS.find_or_add(&(space, name), is_it, |hash| {
        name.validate()?;
        let shared = match kind {
            LockKind::Mutex => None,
            _ => Some(Box::new(Shared::new())),
        };
        // Made in one place, since it is large and may be made for each call.
        Ok::<_, LockError>(Arc::new(Slot {
            space,
            hash,
            name: name.clone(),
            kind,
            first: Arc::clone(source),
            is_busy: AtomicBool::new(false),
            state: Mutex::default(),
            shared,
        }))
    })?;
    if slot.kind != kind {
        return Err(slot.of_another_kind());
    }
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
    #[cold]
    fn of_another_kind(&self) -> LockError {
        self.error(LockErrorKind::InvalidConfig)
            .with_detail(format!(
                "`{}` is a {} elsewhere in this process",
                self.name.shown(),
                self.kind
            ))
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed in whole steps, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether the key has neither a holder nor a waiter nor a call under way.
    pub(crate) fn is_idle(&self) -> bool {
        if let Some(shared) = &self.shared {
            return shared.lock().is_idle();
        }
        let state = self.lock();
        matches!(state.phase, Phase::Idle) && state.queue.is_empty()
    }

    /// Returns why a waiter whose timeout has passed did not get the lock: another holder was seen,
    /// or the provider could not tell whether there is one.
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
        // A grant that comes just now is the waiter's own: it is no other holder.
        let is_own =
            matches!(&state.phase, Phase::Held { ticket: holder, .. } if *holder == ticket);
        let saw_holder = (state.sees_holder() && !is_own) || state.has_seen_holder(ticket);
        let error = match (trouble, &state.trouble) {
            (Some(trouble), _) => trouble,
            (None, _) if saw_holder => {
                LockError::new(LockErrorKind::TimedOut).held_by(state.holder())
            }
            (None, Some(trouble)) => trouble.clone(),
            (None, None) => LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail(format!("no answer within {timeout:?}")),
        };
        error.with_name(self.name.clone())
    }

    pub(crate) fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_name(self.name.clone())
    }

    /// Returns the error of callers who do not wait for the holder.
    pub(super) fn refused(&self, state: &State) -> LockError {
        self.error(LockErrorKind::Contended).held_by(state.holder())
    }
}

impl SlotRef {
    /// Makes a reference to the slot, for this provider.
    #[inline]
    pub(crate) fn new(slot: Arc<Slot>, source: &Arc<Source>) -> Self {
        let other = (!Arc::ptr_eq(&slot.first, source)).then(|| Arc::clone(source));
        Self { slot, other }
    }

    /// Makes a reference to the slot, for its first provider.
    pub(crate) fn any(slot: Arc<Slot>) -> Self {
        Self { slot, other: None }
    }

    /// Returns the address of the slot. No other slot has it while this reference exists.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.slot).addr()
    }

    /// Returns the provider that makes the calls.
    #[inline]
    pub(crate) fn source(&self) -> &Arc<Source> {
        match &self.other {
            Some(other) => other,
            None => &self.slot.first,
        }
    }

    /// Makes a reference to the slot, for the provider that makes this waiter's calls.
    pub(super) fn on_behalf_of<W>(&self, waiter: &Waiter<W>) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
            other: waiter.source.clone(),
        }
    }

    /// Takes the lock if it is free and no provider need be asked. Else takes a place in the queue.
    ///
    /// # Errors
    ///
    /// [`Contended`](LockErrorKind::Contended) if the caller does not wait and there is a holder.
    /// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable) on the in-process fallback, once
    /// a provider has taken its place.
    #[inline]
    pub(crate) fn arrive(
        &self,
        wanted: &Wanted,
        until: impl FnOnce() -> Timestamp,
        in_process: bool,
        waker: &mut Option<Waker>,
    ) -> Result<Arrival, LockError> {
        let waits = wanted.waits();
        let mut guard = self.lock();
        let state = &mut *guard;
        if self.first.is_closed() {
            drop(guard);
            return Err(self.closed());
        }
        // While a call of this process is under way, only what the server told it counts.
        let taken = state.phase.is_held()
            || state.rests()
            || (!state.queue.is_empty() && state.sees_holder());
        if taken && !waits {
            let refused = self.refused(state);
            drop(guard);
            return Err(refused);
        }
        if in_process && matches!(state.phase, Phase::Idle) {
            self.is_busy.store(true, Ordering::Relaxed);
            return Ok(Arrival::Free(state.hold_in_process()));
        }
        self.arrive_behind(guard, wanted, until(), waker)
    }

    /// Returns the error of a caller that came to the fallback too late.
    pub(super) fn closed(&self) -> LockError {
        self.error(LockErrorKind::ProviderUnavailable)
            .with_detail("a provider was registered at this moment; ask again")
    }

    /// Takes a place in the queue.
    fn arrive_behind(
        &self,
        mut guard: MutexGuard<'_, State>,
        wanted: &Wanted,
        until: Timestamp,
        waker: &mut Option<Waker>,
    ) -> Result<Arrival, LockError> {
        let state = &mut *guard;
        let waits = wanted.waits();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        // A caller that only tries, behind others, shares the answer of the head's call.
        let has_a_turn = waits || state.queue.is_empty();
        let queue = match has_a_turn {
            true => &mut state.queue,
            false => &mut state.rare().sharers,
        };
        let waiter = queue.push(ticket);
        wanted.describe(waiter, until);
        waiter.source.clone_from(&self.other);
        waiter.waker = waker.take();
        if waits && state.phase.is_held() {
            return Ok(Arrival::Queued(ticket));
        }
        let effects = match has_a_turn {
            true => self.arrived(state),
            false => self.shares(state),
        };
        drop(guard);
        effects.happen();
        Ok(Arrival::Queued(ticket))
    }

    /// Asks the provider for a waiter that has joined the queue, or has the call under way ask for
    /// more tokens.
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

    /// Has the sharers refused when the call under way reports a holder, or now if it has.
    pub(super) fn shares(&self, state: &mut State) -> Effects {
        if let Phase::Acquiring(interest) = &state.phase {
            let slot = Arc::downgrade(&self.slot);
            interest.when_contended(move || {
                if let Some(slot) = slot.upgrade() {
                    slot.contended();
                }
            });
        }
        // The report may have come between the caller's look and the subscription.
        if state.sees_holder() {
            let refused = self.refused(state);
            return state.fail_sharers(&refused);
        }
        Effects::default()
    }

    /// Takes the lock if the ticket was passed a lock of this process alone. It does not look for
    /// anything else.
    #[inline]
    pub(crate) fn takes_in_process(&self, ticket: u64) -> bool {
        self.source().ask().is_ok_and(|facts| facts.in_process) && self.lock().take(ticket)
    }

    /// Looks at what has become of a ticket, and keeps the waker if there is nothing new. `new`
    /// says that the ticket has not been polled before.
    pub(crate) fn poll_ticket(
        &self,
        ticket: u64,
        new: bool,
        context: &Context<'_>,
    ) -> Poll<Result<Look, LockError>> {
        // Cloned before the lock and dropped after it, since both may run the user's code.
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

    /// Gives a ticket back, whatever has become of it. If that leaves an acquisition that no caller
    /// wants any more, abandons it and returns the interest in it.
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
            if state.queue.is_empty() && state.has_sharers() {
                // No call is made for a waiter any more, so the sharers need calls of their own.
                state.queue = std::mem::take(&mut state.rare().sharers);
            }
        } else if let Some(waiter) = state.remove_sharer(ticket) {
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
    /// Refuses the sharers, if the server has named a holder to the call under way.
    fn contended(&self) {
        let mut state = self.lock();
        let effects = match state.sees_holder() {
            true => {
                let refused = self.refused(&state);
                state.fail_sharers(&refused)
            }
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

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::testing::TestProvider;

    /// As if the grant had come between a waiter's last look and its timeout.
    #[test]
    fn a_grant_of_its_own_is_no_other_holder() {
        let source = Source::new(Arc::new(TestProvider::new()));
        let slot = enter(&source, &LockName::from("just-granted"), LockKind::Mutex).unwrap();
        let mut state = slot.lock();
        state.last_ticket = 2;
        state.phase = Phase::Held {
            ticket: 1,
            token: None,
            lease: None,
            taken: false,
        };
        drop(state);
        let kind = |ticket| slot.timed_out(ticket, Duration::from_millis(300)).kind();
        assert_eq!(kind(1), LockErrorKind::ProviderUnavailable);
        assert_eq!(kind(2), LockErrorKind::TimedOut);
    }
}
