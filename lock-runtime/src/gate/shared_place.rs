//! How callers arrive at a slot that may have several holders, wait there and leave.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::effects::Effects;
use super::release_answer::ReleaseMode;
use super::shared_lines::drop_later;
use super::shared_state::{Hold, Share, Shared, State, UnderWay};
use super::slot::{Arrival, Look, OVERDUE, Slot, SlotRef, Wanted};
use crate::clock::{Span, Timestamp};
use crate::error::{LockError, LockErrorKind};
use crate::lease::Lease;
use crate::provider::{Interest, LockMode};
use crate::telemetry::spans;
use crate::token::FencingToken;

/// What an arrival gets that need not wait: the token and the lease of its share. Inside, the token
/// is drawn later.
type Free = (Option<FencingToken>, Option<Arc<Lease>>);

impl Slot {
    /// Returns what the slot has that may have several holders. Only slots of such kinds are asked.
    #[inline]
    pub(super) fn shared(&self) -> &Shared {
        match &self.shared {
            Some(shared) => shared,
            None => unreachable!("a mutex has one holder"),
        }
    }

    /// Returns why a waiter whose timeout has passed did not get what it wanted: another holder was
    /// seen, or the provider could not tell whether there is one.
    pub(crate) fn shared_timed_out(&self, ticket: u64, timeout: Duration) -> LockError {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        let trouble = match &state.call {
            Some(UnderWay::Acquire { interest, .. }) => interest.trouble(),
            _ if state.releasing > state.lingering
                && state
                    .released_at
                    .is_some_and(|since| (since + OVERDUE).has_passed()) =>
            {
                Some(
                    LockError::new(LockErrorKind::ProviderUnavailable)
                        .with_detail("the provider has not answered a release"),
                )
            }
            _ => None,
        };
        let is_own = state.served.contains_key(&ticket);
        // Looked up before it is borrowed again.
        let aim = state.queue.get(ticket).map(|waiter| waiter.wish);
        let saw_holder = !is_own && state.has_seen_holder(ticket, aim);
        let error = match (trouble, &state.trouble) {
            (Some(trouble), _) => trouble,
            (None, _) if saw_holder => {
                LockError::new(LockErrorKind::TimedOut).held_by(state.holder())
            }
            (None, Some(trouble)) => trouble.clone(),
            (None, None) => LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail(format!("no answer within {timeout:?}")),
        };
        drop(guard);
        error.with_name(self.name.clone())
    }
}

impl SlotRef {
    /// Returns the error of callers who do not wait for the holder.
    pub(super) fn share_is_refused(&self, state: &State) -> LockError {
        self.error(LockErrorKind::Contended).held_by(state.holder())
    }

    /// Takes a share if no wait is needed. Else takes a place in the queue.
    ///
    /// # Errors
    ///
    /// As [`arrive`](Self::arrive).
    #[inline]
    pub(crate) fn arrive_shared(
        &self,
        mode: LockMode,
        wanted: &Wanted,
        until: impl FnOnce() -> Timestamp,
        in_process: bool,
    ) -> Result<Arrival<Free>, LockError> {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        if in_process && state.queue.is_empty() && state.fits(mode) && !self.first.is_closed() {
            if state.inside.add(mode) {
                self.shared().begin_reading();
            }
            return Ok(Arrival::Free((None, None)));
        }
        if self.first.is_closed() {
            drop(guard);
            return Err(self.closed());
        }
        if let LockMode::Read = mode
            && let Some(share) = state.join(|hold| hold.is_readable(self.source()))
        {
            return Ok(Arrival::Free(share));
        }
        if !wanted.waits() && self.is_taken(state, mode, in_process) {
            let refused = self.share_is_refused(state);
            drop(guard);
            return Err(refused);
        }
        let ticket = state.push(mode, wanted, until());
        if let Some(waiter) = state.queue.get(ticket) {
            waiter.source.clone_from(&self.other);
        }
        let mut effects = self.advance(state);
        self.note_limit(state, mode, &mut effects);
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        Ok(Arrival::Queued(ticket))
    }

    /// Tells whether a caller that only tries need not ask: a holder is in its way.
    fn is_taken(&self, state: &State, mode: LockMode, in_process: bool) -> bool {
        if in_process {
            // While a call of a wrapper is under way, only what it is told counts.
            return !state.fits(mode) || state.call.is_none();
        }
        let told = !state.queue.is_empty() && state.sees_holder();
        told || match mode {
            LockMode::Permits { .. } => self.is_the_lock() && !state.fits(mode),
            LockMode::Upgradeable if state.has_upgradeable() => true,
            // A writer who waits for those who read here comes first.
            LockMode::Read | LockMode::Upgradeable => {
                state.is_kept_by_writer()
                    || (state.has_writer_ahead() && !state.fits(LockMode::Write))
            }
            _ => state.is_kept_by_writer() || !state.fits(mode),
        }
    }

    /// Logs once if callers do not agree on how many permits there are.
    fn note_limit(&self, state: &mut State, mode: LockMode, effects: &mut Effects) {
        let LockMode::Permits { limit, .. } = mode else {
            return;
        };
        let before = state.limit.replace(limit);
        if before.is_some_and(|before| before != limit)
            && !std::mem::replace(&mut state.limits_differ, true)
        {
            let slot = self.clone();
            effects.later(move || spans::limits_differ(&slot.name, slot.source().name()));
        }
    }

    /// Joins a grant under which others of this process read, whoever waits. The caller is inside a
    /// body that has a share of one. `None` if that is lost.
    pub(crate) fn join_nested(&self) -> Option<Free> {
        let mut state = self.shared().lock();
        if state.inside.readers > 0 {
            state.inside.add(LockMode::Read);
            return Some((None, None));
        }
        let joined = state
            .holds
            .values_mut()
            .find(|hold| hold.mode == LockMode::Read && hold.shares > 0 && !hold.lease.is_lost())?;
        joined.shares += 1;
        Some((joined.token, Some(Arc::clone(&joined.lease))))
    }

    /// Returns the token of a share that was granted inside. If that panics, the share is given
    /// back and the panic goes on to the caller.
    #[inline]
    pub(crate) fn draw_shared_token(&self, mode: LockMode) -> Option<FencingToken> {
        struct GivesBack<'a>(&'a SlotRef, LockMode);
        impl Drop for GivesBack<'_> {
            fn drop(&mut self) {
                self.0.release_inside(self.1, Timestamp::NONE);
            }
        }
        let gives_back = GivesBack(self, mode);
        let draw = || self.source().provider.grant_in_process();
        let token = match mode {
            LockMode::Read => self.shared().token_of_readers(draw),
            LockMode::Write | LockMode::Upgradeable => draw(),
            _ => None,
        };
        std::mem::forget(gives_back);
        token
    }

    /// Looks at what has become of a ticket, and keeps the waker if there is nothing new. `new`
    /// says that the ticket has not been polled before.
    pub(crate) fn poll_shared(
        &self,
        ticket: u64,
        new: bool,
        context: &Context<'_>,
    ) -> Poll<Result<Look, LockError>> {
        // Cloned before the lock and dropped after it, since both may run the user's code.
        let mut waker = new.then(|| context.waker().clone());
        loop {
            let mut guard = self.shared().lock();
            let state = &mut *guard;
            if let Some(served) = state.served.remove(&ticket) {
                drop(guard);
                return Poll::Ready(Ok(Look::Granted(served.token, served.lease)));
            }
            if let Some(error) = state.failed.remove(&ticket) {
                drop(guard);
                return Poll::Ready(Err((*error).clone()));
            }
            let Some(waiter) = state.queue.get(ticket) else {
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
    pub(crate) fn leave_shared(&self, ticket: u64) -> Option<Interest> {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        state.note_holder();
        let mut effects = Effects::default();
        let mut last = None;
        if let Some(waiter) = state.remove(ticket) {
            drop_later(waiter, &mut effects);
            let abandoned = self.adjust_call(state, &mut effects);
            if let Some(UnderWay::Acquire { interest, .. }) = &state.call
                && abandoned
                && state.queue.is_empty()
            {
                last = Some(interest.clone());
            }
            // Whoever is next may need no call, or may be let in.
            effects.extend(self.advance(state));
            let looked_at = state.be_looked_at();
            drop(guard);
            effects.happen();
            self.look_later(looked_at);
        } else if let Some(served) = state.served.remove(&ticket) {
            state.note_unused(ticket);
            drop(guard);
            self.give_back_unused(served.mode, served.lease);
        } else {
            state.failed.remove(&ticket);
        }
        last
    }

    /// Gives back a share that was not used, since its grant had ended.
    pub(crate) fn give_back_share(&self, mode: LockMode, lease: Arc<Lease>, ticket: u64) {
        self.shared().lock().note_unused(ticket);
        self.give_back_unused(mode, Some(lease));
    }

    pub(super) fn give_back_unused(&self, mode: LockMode, lease: Option<Arc<Lease>>) {
        let share = Share {
            mode,
            token: None,
            lease,
            keep_until: Timestamp::NONE,
            min_hold: Span::NONE,
        };
        self.release_share(&share, ReleaseMode::Confirmed);
    }
}

impl State {
    /// Joins a hold that is open, if nobody waits.
    fn join(&mut self, is_readable: impl Fn(&Hold) -> bool) -> Option<Free> {
        if !self.queue.is_empty() || self.holds.is_empty() || self.upgrades() {
            return None;
        }
        let now = Timestamp::now();
        let joined = self
            .holds
            .values_mut()
            .find(|hold| now < hold.open_until && is_readable(hold))?;
        joined.shares += 1;
        Some((joined.token, Some(Arc::clone(&joined.lease))))
    }
}
