//! A caller's side: one place in the queue, from arrival to guard.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::Sleep;

use super::{Arrival, Look, SlotRef};
use crate::clock::Timestamp;
use crate::guard::LockGuard;
use crate::hold::Hold;
use crate::meter::Meter;
use crate::provider::Capabilities;
use crate::token::FencingToken;
use crate::{LockError, LockErrorKind};
use crate::{held, keeper};

/// The shortest and the longest lease.
const LEASES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
const LONGEST_MIN_HOLD: Duration = Duration::from_secs(24 * 60 * 60);
/// A try waits for nothing but one answer; for this long, if the provider names no bound.
const ONE_ANSWER: Duration = Duration::from_secs(2);
/// A provider that answers at its own bound says more than a timer does.
const SLACK: Duration = Duration::from_millis(40);
/// How long a caller who gives up waits for the provider to take its request back.
const WITHDRAWAL: Duration = Duration::from_millis(25);

/// What a caller wants.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) lease: Option<Duration>,
    /// The longest wait; none for one without end. Zero tries once.
    pub(crate) timeout: Option<Duration>,
    pub(crate) min_hold: Option<Duration>,
    /// The attribute's name as written, or empty.
    pub(crate) template: &'static str,
}

impl Wanted {
    pub(super) fn waits(&self) -> bool {
        self.timeout.is_none_or(|timeout| !timeout.is_zero())
    }
}

/// An acquisition of the slot's lock. May be dropped at any time.
///
/// Not an `async fn`: callers keep this future in their own, which should stay small.
pub(crate) struct Acquire {
    /// Taken when it ends, or gives up.
    slot: Option<SlotRef>,
    wanted: Wanted,
    /// The place in the queue, which is given back when this is dropped.
    ticket: Option<u64>,
    until: Option<Timestamp>,
    timer: Option<Pin<Box<Sleep>>>,
    giving_up: Option<Pin<Box<dyn Future<Output = LockError> + Send>>>,
    /// Taken when it ends.
    meter: Option<Meter>,
}

impl Acquire {
    pub(crate) fn new(slot: SlotRef, wanted: Wanted) -> Self {
        Self {
            slot: Some(slot),
            wanted,
            ticket: None,
            until: None,
            timer: None,
            giving_up: None,
            meter: Some(Meter::new(wanted.template)),
        }
    }

    /// Arrives at the gate: a guard at once, or a place in the queue.
    fn arrive(&mut self) -> Result<Option<LockGuard>, LockError> {
        let slot = self.slot();
        check(slot, &self.wanted)?;
        let (facts, drawn) = slot.source().ask().map_err(|error| named(error, slot))?;
        let (known, wanted) = (self.until, self.wanted);
        let until = || known.or_else(|| wanted.until(&facts.capabilities));
        match slot.arrive(&wanted, until, facts.in_process)? {
            Arrival::Free(ticket, first) => {
                // The token is drawn while the lock is held, so that later ones are higher.
                let token = match drawn.filter(|_| first) {
                    Some(token) => Ok(Some(token)),
                    None => slot.source().draw_token(),
                };
                return self.granted(ticket, token, None).map(Some);
            }
            Arrival::Queued(ticket, until) => {
                self.ticket = Some(ticket);
                self.until = until;
            }
        }
        if let Some(until) = self.until
            && self.timer.is_none()
        {
            self.timer = Some(Box::pin(keeper::sleep_until(until)?));
        }
        Ok(None)
    }

    /// The guard, or the ticket back if there is no token for it.
    fn granted(
        &mut self,
        ticket: u64,
        token: Result<Option<FencingToken>, LockError>,
        hold: Option<Arc<Hold>>,
    ) -> Result<LockGuard, LockError> {
        self.ticket = None;
        let slot = self.take_slot();
        match token {
            Ok(token) => {
                let guard = LockGuard::new(slot, ticket, token, hold);
                Ok(guard.kept_for(self.wanted.min_hold))
            }
            Err(error) => {
                slot.release(ticket, None);
                Err(named(error, &slot))
            }
        }
    }

    pub(crate) fn slot(&self) -> &SlotRef {
        match &self.slot {
            Some(slot) => slot,
            None => unreachable!("polled after the end"),
        }
    }

    fn poll_guard(&mut self, context: &mut Context<'_>) -> Poll<Result<LockGuard, LockError>> {
        loop {
            if let Some(answer) = &mut self.giving_up {
                return answer.as_mut().poll(context).map(Err);
            }
            let new = self.ticket.is_none();
            if new && let Some(guard) = self.arrive()? {
                return Poll::Ready(Ok(guard));
            }
            let Some(ticket) = self.ticket else {
                unreachable!("queued")
            };
            match self.slot().poll_ticket(ticket, new, context)? {
                Poll::Ready(Look::Granted(token, None)) => {
                    let token = match token {
                        Some(token) => Ok(Some(token)),
                        None => self.slot().source().draw_token(),
                    };
                    return Poll::Ready(self.granted(ticket, token, None));
                }
                Poll::Ready(Look::Granted(token, Some(hold))) => {
                    if hold.take() {
                        return Poll::Ready(self.granted(ticket, Ok(token), Some(hold)));
                    }
                    // It ended before anybody could use it, and nothing was done under it.
                    self.slot().release(ticket, None);
                    hold.let_go(ticket);
                    self.gone(ticket)?;
                }
                Poll::Ready(Look::Gone) => self.gone(ticket)?,
                Poll::Pending => {
                    // Also of a wait that began before the body which now waits for it.
                    if held::holds(self.slot()) {
                        return Poll::Ready(Err(self.slot().error(LockErrorKind::WouldDeadlock)));
                    }
                    let Some(timer) = &mut self.timer else {
                        return Poll::Pending;
                    };
                    ready!(timer.as_mut().poll(context));
                    self.ticket = None;
                    self.giving_up = Some(Box::pin(give_up(self.take_slot(), ticket, self.wanted)));
                }
            }
        }
    }

    /// The place is gone, though nothing failed: another one, while there is time.
    fn gone(&mut self, ticket: u64) -> Result<(), LockError> {
        self.ticket = None;
        let slot = self.slot();
        if !self.wanted.waits() {
            return Err(slot
                .error(LockErrorKind::ProviderUnavailable)
                .with_detail("the grant had ended by itself before it could be used"));
        }
        match (self.until, self.wanted.timeout) {
            (Some(until), Some(timeout)) if until.has_passed() => {
                Err(slot.timed_out(ticket, timeout))
            }
            _ => Ok(()),
        }
    }

    fn take_slot(&mut self) -> SlotRef {
        match self.slot.take() {
            Some(slot) => slot,
            None => unreachable!("polled after the end"),
        }
    }
}

impl Wanted {
    /// When a wait that begins now ends.
    fn until(&self, provider: &Capabilities) -> Option<Timestamp> {
        let limit = match self.timeout? {
            Duration::ZERO => provider.response_timeout.unwrap_or(ONE_ANSWER) + SLACK,
            timeout => timeout,
        };
        Some(Timestamp::now() + limit)
    }
}

impl Future for Acquire {
    type Output = Result<LockGuard, LockError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let (Some(meter), Some(slot)) = (&mut this.meter, &this.slot) {
            meter.attempt(slot.source());
        }
        // As everything of Tokio's does, so that a loop of locks starves no other task.
        let proceeds = ready!(coop::poll_proceed(context));
        let mut result = ready!(this.poll_guard(context));
        proceeds.made_progress();
        if let Some(meter) = this.meter.take() {
            match &mut result {
                Ok(guard) => guard.measure(meter.acquired()),
                Err(error) => meter.not_acquired(error.kind()),
            }
        }
        Poll::Ready(result)
    }
}

/// What can be refused without a look at the queue.
fn check(slot: &SlotRef, wanted: &Wanted) -> Result<(), LockError> {
    if let Some(lease) = wanted.lease.filter(|lease| !LEASES.contains(lease)) {
        return Err(slot
            .error(LockErrorKind::InvalidConfig)
            .with_detail(format!("expected a lease of 100 ms to 24 h, got {lease:?}")));
    }
    if let Some(min_hold) = wanted.min_hold.filter(|time| *time > LONGEST_MIN_HOLD) {
        return Err(slot
            .error(LockErrorKind::InvalidConfig)
            .with_detail(format!(
                "expected a min_hold of at most 24 h, got {min_hold:?}"
            )));
    }
    if held::holds(slot) {
        return Err(slot.error(LockErrorKind::WouldDeadlock));
    }
    Ok(())
}

fn named(error: LockError, slot: &SlotRef) -> LockError {
    error.with_name(slot.name.clone())
}

/// The timeout has passed. What was asked of the provider is taken back meanwhile, and after this
/// if that takes longer.
fn give_up(slot: SlotRef, ticket: u64, wanted: Wanted) -> impl Future<Output = LockError> + Send {
    let error = match wanted.timeout.filter(|_| wanted.waits()) {
        Some(timeout) => slot.timed_out(ticket, timeout),
        None => slot
            .error(LockErrorKind::ProviderUnavailable)
            .with_detail("the provider did not answer"),
    };
    let last = slot.leave(ticket);
    async move {
        let Some(interest) = last else {
            return error;
        };
        keeper::within(WITHDRAWAL, interest.ended()).await;
        if !wanted.waits() {
            return error;
        }
        // Only now it may show that the server does not answer, or what it answers.
        match interest.trouble() {
            Some(trouble) => named(trouble, &slot),
            None if interest.is_contended() => slot.error(LockErrorKind::TimedOut),
            None => error,
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let (Some(slot), Some(ticket)) = (&self.slot, self.ticket) {
            slot.leave(ticket);
        }
        if let Some(meter) = self.meter.take() {
            meter.cancelled();
        }
    }
}
