//! A caller's side: one place in the queue, from arrival to guard.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
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
pub(crate) async fn acquire(
    slot: SlotRef,
    lease: Option<Duration>,
    timeout: Option<Duration>,
) -> Result<LockGuard, LockError> {
    let waits = timeout.is_none_or(|timeout| !timeout.is_zero());
    let ticket = match slot.arrive(waits, lease)? {
        Arrival::Granted(token, ticket) => return Ok(LockGuard::new(slot, ticket, token, None)),
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
    match poll_fn(|context| waiting.poll(context)).await {
        Some(result) => result,
        None => Box::pin(waiting.give_up()).await,
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
        let Some(slot) = self.slot.take() else {
            unreachable!("just looked")
        };
        Poll::Ready(Some(result.map(|(token, hold)| {
            LockGuard::new(slot, self.ticket, token, hold)
        })))
    }

    async fn give_up(mut self) -> Result<LockGuard, LockError> {
        let Some(slot) = self.slot.take() else {
            unreachable!("polled to the timeout")
        };
        let timed_out = slot.timed_out();
        if slot.leave(self.ticket) {
            // The last one takes the request back from the server before it answers.
            keeper::within(WITHDRAWAL, slot.withdrawn()).await;
        }
        Err(timed_out)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            slot.leave(self.ticket);
        }
    }
}
