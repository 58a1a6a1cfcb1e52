//! A caller's side: one place in the queue, from arrival to guard.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::{Arrival, SlotRef};
use crate::LockError;
use crate::clock::Timestamp;
use crate::guard::LockGuard;
use crate::keeper;

/// How long a caller who gives up waits for the provider to take its request back.
const WITHDRAWAL: Duration = Duration::from_secs(1);
/// Acquires the slot's lock, waiting at most `timeout`, or without end if there is none. A timeout
/// of zero tries once.
///
/// Not an `async fn`: callers keep this future in their own, which should stay small.
pub(crate) fn acquire(
    slot: SlotRef,
    lease: Option<Duration>,
    timeout: Option<Duration>,
) -> Acquire {
    start(slot, lease, timeout).map_or_else(Acquire::failed, Acquire)
}

/// An acquisition. May be dropped at any time.
pub(crate) struct Acquire(Step);

enum Step {
    Done(Result<LockGuard, LockError>),
    Waiting(Waiting),
    GivingUp(Pin<Box<dyn Future<Output = LockError> + Send>>),
    Over,
}

fn start(
    slot: SlotRef,
    lease: Option<Duration>,
    timeout: Option<Duration>,
) -> Result<Step, LockError> {
    let waits = timeout.is_none_or(|timeout| !timeout.is_zero());
    let ticket = match slot.arrive(waits, lease)? {
        Arrival::Granted(token, ticket) => {
            return Ok(Step::Done(Ok(LockGuard::new(slot, ticket, token, None))));
        }
        Arrival::Queued(ticket) => ticket,
    };
    let mut waiting = Waiting {
        slot: Some(slot),
        ticket,
        timer: None,
    };
    if let Some(timeout) = timeout.filter(|_| waits) {
        let timer = keeper::sleep_until(Timestamp::now() + timeout)?;
        waiting.timer = Some(Box::pin(timer));
    }
    Ok(Step::Waiting(waiting))
}

impl Acquire {
    /// One that fails.
    pub(crate) fn failed(error: LockError) -> Self {
        Self(Step::Done(Err(error)))
    }
}

impl Future for Acquire {
    type Output = Result<LockGuard, LockError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let step = &mut self.0;
        loop {
            match step {
                Step::Waiting(waiting) => match ready!(waiting.poll(context)) {
                    Some(result) => *step = Step::Done(result),
                    None => *step = Step::GivingUp(Box::pin(give_up(waiting.take()))),
                },
                Step::GivingUp(answer) => {
                    let error = ready!(answer.as_mut().poll(context));
                    *step = Step::Done(Err(error));
                }
                Step::Done(_) | Step::Over => match mem::replace(step, Step::Over) {
                    Step::Done(result) => return Poll::Ready(result),
                    _ => unreachable!("polled after the end"),
                },
            }
        }
    }
}

/// A place in the queue; given back when dropped.
struct Waiting {
    /// Taken when it ends.
    slot: Option<SlotRef>,
    ticket: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    /// `None` when the timeout has passed.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<LockGuard, LockError>>> {
        let Some(slot) = &self.slot else {
            unreachable!("polled after the end")
        };
        let Poll::Ready(result) = slot.poll_ticket(self.ticket, context) else {
            return match &mut self.timer {
                Some(timer) => timer.as_mut().poll(context).map(|()| None),
                None => Poll::Pending,
            };
        };
        let slot = self.take().0;
        Poll::Ready(Some(result.map(|(token, hold)| {
            LockGuard::new(slot, self.ticket, token, hold)
        })))
    }

    /// The place, which is not given back any more.
    fn take(&mut self) -> (SlotRef, u64) {
        let Some(slot) = self.slot.take() else {
            unreachable!("taken once, at the end")
        };
        (slot, self.ticket)
    }
}

/// The timeout has passed.
fn give_up((slot, ticket): (SlotRef, u64)) -> impl Future<Output = LockError> + Send {
    let timed_out = slot.timed_out();
    let was_last = slot.leave(ticket);
    async move {
        if was_last {
            // The last one takes the request back from the server before it answers.
            keeper::within(WITHDRAWAL, slot.withdrawn()).await;
        }
        timed_out
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            slot.leave(self.ticket);
        }
    }
}
