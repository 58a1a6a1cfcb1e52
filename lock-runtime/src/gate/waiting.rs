//! A caller's side: one place in the queue, from arrival to guard.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::Sleep;

use super::{Arrival, SlotRef};
use crate::clock::Timestamp;
use crate::guard::LockGuard;
use crate::meter::Meter;
use crate::{LockError, LockErrorKind};
use crate::{held, keeper};

/// The shortest and the longest lease.
const LEASES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
/// A try waits for nothing but the provider's answer; for this long, if the provider sets no bound.
const TRY_BOUND: Duration = Duration::from_secs(15);
/// How long a caller who gives up waits for the provider to take its request back.
const WITHDRAWAL: Duration = Duration::from_secs(1);

/// An acquisition of the slot's lock. May be dropped at any time.
///
/// Not an `async fn`: callers keep this future in their own, which should stay small.
pub(crate) struct Acquire {
    /// Taken when it ends, or gives up.
    slot: Option<SlotRef>,
    lease: Option<Duration>,
    /// The longest wait; none for one without end. Zero tries once.
    timeout: Option<Duration>,
    /// The place in the queue, which is given back when this is dropped.
    ticket: Option<u64>,
    timer: Option<Pin<Box<Sleep>>>,
    giving_up: Option<Pin<Box<dyn Future<Output = LockError> + Send>>>,
    /// Taken when it ends.
    meter: Option<Meter>,
}

impl Acquire {
    /// `template` is the attribute's name as written, or empty.
    pub(crate) fn new(
        slot: SlotRef,
        lease: Option<Duration>,
        timeout: Option<Duration>,
        template: &'static str,
    ) -> Self {
        let slot = Some(slot);
        Self {
            slot,
            lease,
            timeout,
            ticket: None,
            timer: None,
            giving_up: None,
            meter: Some(Meter::new(template)),
        }
    }

    /// The first poll: a guard at once, or a place in the queue.
    fn start(&mut self) -> Result<Option<LockGuard>, LockError> {
        let slot = self.slot();
        check(slot, self.lease)?;
        let timeout = self.timeout;
        let waits = timeout.is_none_or(|timeout| !timeout.is_zero());
        match slot.arrive(waits, self.lease)? {
            Arrival::Granted(token, ticket) => {
                return Ok(Some(LockGuard::new(self.take_slot(), ticket, token, None)));
            }
            Arrival::Queued(ticket) => self.ticket = Some(ticket),
        }
        if let Some(timeout) = timeout {
            let timeout = if waits { timeout } else { TRY_BOUND };
            let timer = keeper::sleep_until(Timestamp::now() + timeout)?;
            self.timer = Some(Box::pin(timer));
        }
        Ok(None)
    }

    fn slot(&self) -> &SlotRef {
        match &self.slot {
            Some(slot) => slot,
            None => unreachable!("polled after the end"),
        }
    }

    fn poll_guard(&mut self, context: &mut Context<'_>) -> Poll<Result<LockGuard, LockError>> {
        if let Some(answer) = &mut self.giving_up {
            return answer.as_mut().poll(context).map(Err);
        }
        let ticket = match self.ticket {
            Some(ticket) => ticket,
            None => match self.start() {
                Ok(Some(guard)) => return Poll::Ready(Ok(guard)),
                Ok(None) => match self.ticket {
                    Some(ticket) => ticket,
                    None => unreachable!("queued"),
                },
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        if let Poll::Ready(result) = self.slot().poll_ticket(ticket, context) {
            let slot = self.take_slot();
            return Poll::Ready(
                result.map(|(token, hold)| LockGuard::new(slot, ticket, token, hold)),
            );
        }
        let Some(timer) = &mut self.timer else {
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(context));
        let tried = self.timeout.is_some_and(|timeout| timeout.is_zero());
        let mut answer = Box::pin(give_up(self.take_slot(), ticket, tried));
        let answered = answer.as_mut().poll(context).map(Err);
        self.giving_up = Some(answer);
        answered
    }

    fn take_slot(&mut self) -> SlotRef {
        match self.slot.take() {
            Some(slot) => slot,
            None => unreachable!("polled after the end"),
        }
    }
}

impl Future for Acquire {
    type Output = Result<LockGuard, LockError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let (Some(meter), Some(slot)) = (&mut this.meter, &this.slot) {
            meter.attempt(&*slot.provider);
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
fn check(slot: &SlotRef, lease: Option<Duration>) -> Result<(), LockError> {
    if let Some(lease) = lease.filter(|lease| !LEASES.contains(lease)) {
        return Err(slot
            .error(LockErrorKind::InvalidConfig)
            .with_detail(format!("expected a lease of 100 ms to 24 h, got {lease:?}")));
    }
    if held::holds(slot) {
        return Err(slot.error(LockErrorKind::WouldDeadlock));
    }
    Ok(())
}

/// The timeout has passed.
fn give_up(slot: SlotRef, ticket: u64, tried: bool) -> impl Future<Output = LockError> + Send {
    let timed_out = if tried {
        slot.error(LockErrorKind::ProviderUnavailable)
            .with_detail("the provider did not answer")
    } else {
        slot.timed_out()
    };
    let last = slot.leave(ticket);
    async move {
        let Some(interest) = last else {
            return timed_out;
        };
        // The last one takes the request back from the server before it answers.
        keeper::within(WITHDRAWAL, slot.withdrawn()).await;
        match interest.trouble() {
            // Only now it shows that the server does not answer.
            Some(trouble) if !tried => trouble.with_name(slot.name.clone()),
            _ => timed_out,
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
