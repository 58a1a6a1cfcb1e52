//! `Acquiring`: a caller's future, from its arrival at the gate to its guard.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::Sleep;

use crate::background;
use crate::clock::{Span, Timestamp};
use crate::error::{LockError, LockErrorKind};
use crate::gate::{Arrival, Look, SlotRef, Wanted};
use crate::kind::{Kind, Won};
use crate::limits::{LEASES, LONGEST_MIN_HOLD};
use crate::provider::Capabilities;
use crate::source::Facts;
use crate::telemetry::metrics::Meter;

/// How long a caller that only tries waits for the one answer, if the provider names no bound.
const ONE_ANSWER: Duration = Duration::from_secs(2);
/// How much longer than the provider's bound a caller that only tries waits. An error that the
/// provider answers at its bound says more than a timer does.
const SLACK: Duration = Duration::from_millis(40);
/// How long a caller that gives up waits for the provider to take its request back.
pub(crate) const WITHDRAWAL: Duration = Duration::from_millis(25);

/// Returns when a wait that begins now ends, if ever.
#[inline]
pub(crate) fn end_of_wait(timeout: Span, provider: &Capabilities) -> Timestamp {
    match timeout.get() {
        None => Timestamp::NONE,
        Some(Duration::ZERO) => {
            Timestamp::now() + provider.response_timeout.unwrap_or(ONE_ANSWER) + SLACK
        }
        Some(timeout) => Timestamp::now() + timeout,
    }
}

/// What is needed of a wait only if the lock is not free.
pub(crate) struct Wait {
    /// The ticket of the place in the queue, which is given back when the future is dropped. Zero
    /// if there is none.
    ticket: u64,
    waker: WakerState,
    /// When the caller's time is up, if ever.
    until: Timestamp,
    /// Made at the first wait that has an end.
    timer: Option<Pin<Box<Sleep>>>,
    /// Its time is up, and it looks for the last time.
    is_late: bool,
    giving_up: Option<Pin<Box<dyn Future<Output = LockError> + Send>>>,
    /// Taken when the wait ends.
    meter: Option<Meter>,
}

/// Which waker the place in the queue has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WakerState {
    /// The place has no waker yet.
    Missing,
    /// The place has the waker of this very poll, so there is no need to look again.
    Fresh,
    /// The place has the waker of the last poll.
    Old,
}

impl Wait {
    const EMPTY: Self = Self {
        ticket: 0,
        waker: WakerState::Missing,
        until: Timestamp::NONE,
        timer: None,
        is_late: false,
        giving_up: None,
        meter: None,
    };

    /// Makes the wait for a ticket that its caller has already, which ends at this moment.
    pub(crate) fn of_ticket(ticket: u64, until: Timestamp) -> Self {
        Self {
            ticket,
            until,
            meter: Some(Meter::none()),
            ..Self::EMPTY
        }
    }

    /// Polls the place in the queue, until it has the lock or the wait has failed.
    fn poll_won<K: Kind>(
        &mut self,
        kind: K,
        slot: &mut Option<SlotRef>,
        wanted: &Wanted,
        context: &mut Context<'_>,
    ) -> Poll<Result<Won, LockError>> {
        loop {
            if let Some(answer) = &mut self.giving_up {
                return answer.as_mut().poll(context).map(Err);
            }
            let Some(present) = &*slot else {
                unreachable!("polled after the end")
            };
            let ticket = self.ticket;
            let waker = std::mem::replace(&mut self.waker, WakerState::Old);
            let looked = match waker {
                WakerState::Fresh => Poll::Pending,
                WakerState::Missing => kind.poll_ticket(present, ticket, true, context)?,
                WakerState::Old => kind.poll_ticket(present, ticket, false, context)?,
            };
            match looked {
                Poll::Ready(Look::Granted(token, None)) => {
                    self.ticket = 0;
                    let token = token.or_else(|| kind.draw_token(present, ticket));
                    return Poll::Ready(Ok((ticket, token, None)));
                }
                Poll::Ready(Look::Granted(token, Some(lease))) => {
                    self.ticket = 0;
                    if lease.take() {
                        return Poll::Ready(Ok((ticket, token, Some(lease))));
                    }
                    // The lease ended before the caller could use it, so nothing was done under it.
                    kind.give_back_unused(present, ticket, lease);
                    if let Some(won) = self.arrive_again(kind, present, wanted, ticket)? {
                        return Poll::Ready(Ok(won));
                    }
                }
                Poll::Ready(Look::Gone) => {
                    self.ticket = 0;
                    if let Some(won) = self.arrive_again(kind, present, wanted, ticket)? {
                        return Poll::Ready(Ok(won));
                    }
                }
                Poll::Pending => {
                    // Checked at each poll: the wait may have begun before the body that now polls
                    // it. The arrival has checked it in this very poll.
                    let is_fresh = waker == WakerState::Fresh;
                    if !is_fresh && let Some(won) = kind.look_inside(present, ticket)? {
                        self.ticket = 0;
                        return Poll::Ready(Ok(won));
                    }
                    if self.until == Timestamp::NONE {
                        return Poll::Pending;
                    }
                    let timer = match &mut self.timer {
                        Some(timer) => timer,
                        timer => {
                            // Just after the arrival all of the timeout is left, so the clock need
                            // not be read again.
                            let timeout = wanted.timeout.get();
                            let sleep = match timeout.filter(|_| is_fresh && wanted.waits()) {
                                Some(timeout) => background::sleep(timeout)?,
                                None => background::sleep_until(self.until)?,
                            };
                            timer.insert(Box::pin(sleep))
                        }
                    };
                    ready!(timer.as_mut().poll(context));
                    if !std::mem::replace(&mut self.is_late, true) {
                        // The grant may have come since the look above.
                        continue;
                    }
                    self.ticket = 0;
                    if let Some(slot) = slot.take() {
                        self.giving_up = Some(Box::pin(give_up(kind, slot, ticket, *wanted)));
                    }
                }
            }
        }
    }

    /// Takes another place in the queue, if there is time. The place before is gone, although
    /// nothing failed.
    fn arrive_again<K: Kind>(
        &mut self,
        kind: K,
        slot: &SlotRef,
        wanted: &Wanted,
        ticket: u64,
    ) -> Result<Option<Won>, LockError> {
        if !wanted.waits() {
            return Err(slot
                .error(LockErrorKind::ProviderUnavailable)
                .with_detail("the grant had ended by itself before it could be used"));
        }
        if let Some(timeout) = wanted.timeout.get()
            && self.until.has_passed()
        {
            return Err(kind.timed_out(slot, ticket, timeout));
        }
        match arrive(kind, slot, wanted, &mut self.until, &mut None)? {
            Arrival::Free(free) => Ok(Some(kind.won(slot, free))),
            Arrival::Queued(ticket) => {
                (self.ticket, self.waker) = (ticket, WakerState::Missing);
                Ok(None)
            }
        }
    }
}

/// Arrives at the gate. `until` is when the wait ends, if that is known already. It is set for a
/// caller that must wait.
#[inline]
fn arrive<K: Kind>(
    kind: K,
    slot: &SlotRef,
    wanted: &Wanted,
    until: &mut Timestamp,
    waker: &mut Option<Waker>,
) -> Result<Arrival<K::Free>, LockError> {
    let facts = slot.source().ask().map_err(|error| named(error, slot))?;
    check(kind, slot, facts, wanted)?;
    let mut known = || {
        if *until == Timestamp::NONE {
            *until = end_of_wait(wanted.timeout, &facts.capabilities);
        }
        *until
    };
    // A caller that will probably wait reads the clock before it takes the slot's lock, which other
    // threads want just then.
    if waker.is_some() {
        known();
    }
    kind.arrive(slot, wanted, known, facts.in_process, waker)
}

/// The future that acquires the slot's lock. It may be dropped at any time.
///
/// Callers keep it in futures of their own and move it there, so it is kept small. It is no `async
/// fn`, takes what it needs by reference, and makes a wait only if the lock is not free.
pub(crate) struct Acquiring<'a, K: Kind> {
    kind: K,
    /// Taken when the lock is acquired, or the caller gives up.
    slot: &'a mut Option<SlotRef>,
    wanted: &'a Wanted,
    /// The place of the wait, which is empty at first.
    wait: &'a mut Option<Wait>,
}

impl<'a, K: Kind> Acquiring<'a, K> {
    #[inline]
    pub(crate) fn new(
        kind: K,
        slot: &'a mut Option<SlotRef>,
        wanted: &'a Wanted,
        wait: &'a mut Option<Wait>,
    ) -> Self {
        Self {
            kind,
            slot,
            wanted,
            wait,
        }
    }

    /// Polls a wait that has begun.
    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<Result<K::Guard, LockError>> {
        let Some(wait) = &mut *self.wait else {
            unreachable!("the wait has begun")
        };
        let proceeds = ready!(coop::poll_proceed(context));
        // Apart from the rest, since a result that is handed on would be read before the processor
        // has written it.
        if wait.waker == WakerState::Old
            && let Some(slot) = self
                .slot
                .take_if(|slot| self.kind.takes_in_process(slot, wait.ticket))
            && let Some(meter) = wait.meter.take()
        {
            let ticket = std::mem::take(&mut wait.ticket);
            proceeds.made_progress();
            let token = self.kind.draw_token(&slot, ticket);
            let won = (ticket, token, None);
            return Poll::Ready(Ok(self.kind.guard(slot, self.wanted, won, meter)));
        }
        let won = ready!(wait.poll_won(self.kind, self.slot, self.wanted, context));
        proceeds.made_progress();
        let Some(meter) = wait.meter.take() else {
            unreachable!("polled after the end")
        };
        Poll::Ready(match won {
            Ok(won) => match self.slot.take() {
                Some(slot) => Ok(self.kind.guard(slot, self.wanted, won, meter)),
                None => unreachable!("polled after the end"),
            },
            Err(error) => {
                meter.not_acquired(error.kind());
                Err(error)
            }
        })
    }
}

impl<K: Kind> Future for Acquiring<'_, K> {
    type Output = Result<K::Guard, LockError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.wait.is_some() {
            return this.poll_wait(context);
        }
        let Some(slot) = &*this.slot else {
            unreachable!("polled after the end")
        };
        // Tokio's cooperative budget, so that a loop that acquires locks starves no other task.
        let proceeds = ready!(coop::poll_proceed(context));
        let mut meter = match this.wanted.measured {
            true => Meter::new(this.wanted.template, K::MODE),
            false => Meter::none(),
        };
        meter.attempt(|| slot.source().name());
        let is_busy = slot.is_busy.load(Ordering::Relaxed);
        let mut waker = is_busy.then(|| context.waker().clone());
        let mut until = Timestamp::NONE;
        match arrive(this.kind, slot, this.wanted, &mut until, &mut waker) {
            Ok(Arrival::Free(free)) => {
                proceeds.made_progress();
                let won = this.kind.won(slot, free);
                let Some(slot) = this.slot.take() else {
                    unreachable!("just looked")
                };
                Poll::Ready(Ok(this.kind.guard(slot, this.wanted, won, meter)))
            }
            Ok(Arrival::Queued(ticket)) => {
                // The place has the waker of this very poll, if it was known that it would be used.
                let (waker, is_done) = match (is_busy, until) {
                    (true, Timestamp::NONE) => (WakerState::Old, true),
                    (true, _) => (WakerState::Fresh, false),
                    (false, _) => (WakerState::Missing, false),
                };
                // Filled in where it stands. A whole one would be written twice, and the second
                // write would wait for the first.
                let wait = this.wait.get_or_insert(Wait::EMPTY);
                wait.ticket = ticket;
                wait.waker = waker;
                wait.until = until;
                wait.meter = Some(meter);
                drop(proceeds);
                if is_done {
                    return Poll::Pending;
                }
                this.poll_wait(context)
            }
            Err(error) => {
                proceeds.made_progress();
                meter.not_acquired(error.kind());
                Poll::Ready(Err(error))
            }
        }
    }
}

/// Refuses what can be refused without a look at the queue.
#[inline]
pub(crate) fn check(
    kind: impl Kind,
    slot: &SlotRef,
    facts: &Facts,
    wanted: &Wanted,
) -> Result<(), LockError> {
    if !wanted.lease.is_none() || !wanted.min_hold.is_none() {
        check_spans(slot, wanted)?;
    }
    kind.check(slot, facts)
}

fn check_spans(slot: &SlotRef, wanted: &Wanted) -> Result<(), LockError> {
    let wrong = match (wanted.lease.get(), wanted.min_hold.get()) {
        (Some(lease), _) if !LEASES.contains(&lease) => {
            format!("expected a lease of 100 ms to 24 h, got {lease:?}")
        }
        (_, Some(min_hold)) if min_hold > LONGEST_MIN_HOLD => {
            format!("expected a min_hold of at most 24 h, got {min_hold:?}")
        }
        _ => return Ok(()),
    };
    Err(slot.error(LockErrorKind::InvalidConfig).with_detail(wrong))
}

fn named(error: LockError, slot: &SlotRef) -> LockError {
    error.with_name(slot.name.clone())
}

/// Gives up after the timeout, and returns the error.
///
/// It waits for the provider to take the request back, but no longer than [`WITHDRAWAL`]. After
/// that, the provider does so in the background.
fn give_up(
    kind: impl Kind,
    slot: SlotRef,
    ticket: u64,
    wanted: Wanted,
) -> impl Future<Output = LockError> + Send {
    let error = match wanted.timeout.get().filter(|_| wanted.waits()) {
        Some(timeout) => kind.timed_out(&slot, ticket, timeout),
        None => slot
            .error(LockErrorKind::ProviderUnavailable)
            .with_detail("the provider did not answer"),
    };
    let last = kind.leave(&slot, ticket);
    async move {
        let Some(interest) = last else {
            return error;
        };
        background::within(WITHDRAWAL, interest.ended()).await;
        if !wanted.waits() {
            return error;
        }
        // The withdrawal may have shown that the server does not answer, or that there is a holder.
        match interest.trouble() {
            Some(trouble) => named(trouble, &slot),
            None if interest.is_contended() => slot
                .error(LockErrorKind::TimedOut)
                .held_by(interest.holder()),
            None => error,
        }
    }
}

impl<K: Kind> Drop for Acquiring<'_, K> {
    #[inline]
    fn drop(&mut self) {
        let Some(wait) = &mut *self.wait else {
            return;
        };
        if wait.ticket != 0
            && let Some(slot) = &*self.slot
        {
            self.kind.leave(slot, wait.ticket);
        }
        if let Some(meter) = wait.meter.take() {
            meter.cancelled();
        }
    }
}
