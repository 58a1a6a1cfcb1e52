//! Waits for the first of two futures, or for all of several.
//!
//! Tokio's `select!` and `join!` would bring a second macro crate into every build.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

/// A boxed future, which the methods of [`LockProvider`](crate::LockProvider) return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The output of the future that was ready first.
pub(crate) enum First<A, B> {
    Left(A),
    Right(B),
}

/// Waits for the first of two futures, and drops the other one. The left one is polled first.
pub(crate) async fn select<A, B>(
    left: impl Future<Output = A>,
    right: impl Future<Output = B>,
) -> First<A, B> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|context| {
        if let Poll::Ready(output) = left.as_mut().poll(context) {
            return Poll::Ready(First::Left(output));
        }
        right.as_mut().poll(context).map(First::Right)
    })
    .await
}

/// Waits for both futures, which are polled in this order.
#[cfg(feature = "_server")]
#[allow(dead_code, reason = "not every server needs it")]
pub(crate) async fn join<A, B>(
    left: impl Future<Output = A>,
    right: impl Future<Output = B>,
) -> (A, B) {
    let (mut left, mut right) = (pin!(left), pin!(right));
    let (mut first, mut second) = (None, None);
    poll_fn(|context| {
        if first.is_none()
            && let Poll::Ready(output) = left.as_mut().poll(context)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = right.as_mut().poll(context)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

/// Waits for all futures, and returns their outputs in order.
pub(crate) async fn join_all<T>(futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    enum Slot<'a, T> {
        Pending(BoxFuture<'a, T>),
        Done(T),
    }
    let mut slots: Vec<_> = futures.into_iter().map(Slot::Pending).collect();
    poll_fn(|context| {
        let mut done = true;
        for slot in &mut slots {
            if let Slot::Pending(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Slot::Done(output),
                    Poll::Pending => done = false,
                }
            }
        }
        if done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let outputs = slots.into_iter().filter_map(|slot| match slot {
        Slot::Done(output) => Some(output),
        Slot::Pending(_) => None,
    });
    outputs.collect()
}

/// Waits for the first future that succeeds. If none does, returns the error of the one that failed
/// last; `None` if there is none.
#[cfg(feature = "redis")]
pub(crate) async fn first_ok<T, E>(
    mut futures: Vec<BoxFuture<'_, Result<T, E>>>,
) -> Option<Result<T, E>> {
    let mut outcome = None;
    poll_fn(|context| {
        futures.retain_mut(|future| {
            if matches!(outcome, Some(Ok(_))) {
                return true;
            }
            match future.as_mut().poll(context) {
                Poll::Ready(output) => {
                    outcome = Some(output);
                    false
                }
                Poll::Pending => true,
            }
        });
        match futures.is_empty() || matches!(outcome, Some(Ok(_))) {
            true => Poll::Ready(outcome.take()),
            false => Poll::Pending,
        }
    })
    .await
}
