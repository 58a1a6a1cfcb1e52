//! `Alarm`: one timer for many moments of a task.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use crate::clock::Timestamp;

/// A timer that outlives what it is set for. Each that is set or taken away may wake the thread
/// that keeps it, which costs more than a request does.
#[derive(Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Tells whether this moment has passed. If not, the task is woken then, or before. To be polled
    /// within the runtime whose timer it is, by one task.
    pub(crate) fn poll_at(&mut self, at: Timestamp, context: &mut Context<'_>) -> Poll<()> {
        let now = Timestamp::now();
        if at <= now {
            return Poll::Ready(());
        }
        let left = at.since(now);
        let due = Instant::now() + left;
        if let Some(timer) = &self.0
            && !timer.is_elapsed()
            && timer.deadline() <= due
        {
            return Poll::Pending;
        }
        let timer = self.0.insert(Box::pin(tokio::time::sleep(left)));
        // Without a budget left, it would not be set.
        let asking = pin!(tokio::task::unconstrained(timer.as_mut()));
        if asking.poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
