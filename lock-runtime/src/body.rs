//! Runs a body while a lock is held: acquires the lock, polls the body together with the lease, and
//! releases the lock.

use std::cell::OnceCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::acquire::{Acquiring, Wait};
use crate::background;
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::gate::{SlotRef, Wanted};
use crate::guard::Guard;
use crate::kind::Kind;
use crate::telemetry::spans::Call;

/// The place of a guard that the body uses. It is declared before the body, and so dropped after
/// it.
pub struct GuardCell<G>(OnceLock<G>);

impl<G> GuardCell<G> {
    /// Makes an empty cell.
    #[allow(clippy::new_without_default, reason = "it is made in place")]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns the guard. The body runs only while there is one.
    pub fn guard(&self) -> &G {
        match self.0.get() {
            Some(guard) => guard,
            None => unreachable!("the body is polled only after the lock was acquired"),
        }
    }
}

/// A place for the guard while the body runs.
pub(crate) trait GuardPlace<G> {
    /// Stores the guard.
    fn put(&self, guard: G) -> &G;
}

impl<G> GuardPlace<G> for &GuardCell<G> {
    fn put(&self, guard: G) -> &G {
        self.0.get_or_init(|| guard)
    }
}

/// The place of a guard that the body does not use, so that no other thread refers to it.
impl<G> GuardPlace<G> for OnceCell<G> {
    fn put(&self, guard: G) -> &G {
        self.get_or_init(|| guard)
    }
}

/// What a body runs under: a lock of some kind, or several locks.
pub(crate) trait Goal: Send + Sync + 'static {
    type Guard: Guard;
    /// The slots, with what is wanted of them.
    type Entered;
    /// What is needed of a wait.
    type Wait;

    /// Acquires it.
    fn acquiring<'a>(
        self,
        entered: &'a mut Self::Entered,
        wait: &'a mut Option<Self::Wait>,
    ) -> impl Future<Output = Result<Self::Guard, LockError>> + Send;
}

impl<K: Kind> Goal for K {
    type Guard = K::Guard;
    type Entered = (Option<SlotRef>, Wanted);
    type Wait = Wait;

    #[inline]
    fn acquiring<'a>(
        self,
        (slot, wanted): &'a mut Self::Entered,
        wait: &'a mut Option<Wait>,
    ) -> impl Future<Output = Result<K::Guard, LockError>> + Send {
        Acquiring::new(self, slot, wanted, wait)
    }
}

/// A call that has found its slots.
pub(crate) struct Begun<L: Goal> {
    pub(crate) call: Call,
    pub(crate) goal: L,
    pub(crate) entered: Result<L::Entered, LockError>,
    pub(crate) max_hold: Option<Duration>,
}

/// Acquires the lock, runs the body while it is held, and releases it. Calls `not_run` with the
/// error if the body did not run, or not to its end.
///
/// It is no `async fn` and awaits few futures, since its future is a part of every annotated
/// call's.
pub(crate) fn run_in<F, N, K, L>(
    begun: Begun<L>,
    place: impl GuardPlace<L::Guard>,
    body: Pin<&mut Option<F>>,
    not_run: N,
) -> impl Future<Output = F::Output>
where
    F: Future,
    N: FnOnce(LockError) -> F::Output,
    K: Keep<F::Output>,
    L: Goal,
{
    let mut body = Body(body);
    let Begun {
        mut call,
        goal,
        mut entered,
        max_hold,
    } = begun;
    async move {
        // Captured first. So the body is dropped before the guard if the caller drops this future
        // half-way.
        let _ = &body;
        let acquired = match &mut entered {
            Ok(entered) => goal.acquiring(entered, &mut None).await,
            Err(error) => Err(error.clone()),
        };
        let held = |acquired| {
            let acquired: L::Guard = acquired;
            call.acquired(acquired.token());
            place.put(acquired)
        };
        let guard = match acquired.map(held) {
            Ok(guard) => guard,
            Err(error) => {
                body.0.set(None);
                call.not_acquired(&error);
                return not_run(error);
            }
        };
        let (ended, released) = {
            let held = pin!(body.while_held(guard, max_hold.as_ref()));
            until_released(K::default(), held, pin!(guard.release_in_place())).await
        };
        call.released(ended.as_ref().err(), released);
        ended.unwrap_or_else(not_run)
    }
}

/// A body in its caller's future, where it is dropped in place.
struct Body<'a, F>(Pin<&'a mut Option<F>>);

impl<F: Future> Body<'_, F> {
    /// Polls the body to its end, but no longer than the lock is held.
    fn while_held(
        &mut self,
        guard: &impl Guard,
        max_hold: Option<&Duration>,
    ) -> impl Future<Output = Result<F::Output, LockError>> {
        let mut limit = max_hold.map(Limit::start);
        if let Some(max_hold) = max_hold {
            guard.renew_until(Timestamp::now() + *max_hold);
        }
        let mut lost = guard.until_lost();
        poll_fn(move |context| {
            let Some(body) = self.0.as_mut().as_pin_mut() else {
                unreachable!("the body is there until its end")
            };
            let ended = ready!(poll_held(body, guard, &mut lost, &mut limit, context));
            // What is left of the body is dropped while the lock is still held.
            self.0.set(None);
            Poll::Ready(ended)
        })
    }
}

/// Polls the body. Returns an error if the lock is lost, or `max_hold` is over.
///
/// The compiler makes it anew for each annotated function, so what does not depend on the body is in
/// functions of its own.
fn poll_held<F: Future>(
    body: Pin<&mut F>,
    guard: &impl Guard,
    lost: &mut Option<impl Future<Output = ()> + Unpin>,
    limit: &mut Option<Limit<'_>>,
    context: &mut Context<'_>,
) -> Poll<Result<F::Output, LockError>> {
    if let Some(error) = what_ends_it(guard, limit) {
        return Poll::Ready(Err(error));
    }
    let polled = {
        let _polling = guard.polling();
        body.poll(context)
    };
    match polled {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        // Polled after the body. Many bodies never wait, and then need no waker here.
        Poll::Pending => poll_end(guard, lost, limit, context).map(Err),
    }
}

/// Returns the error if the body must not be polled any more.
fn what_ends_it(guard: &impl Guard, limit: &Option<Limit<'_>>) -> Option<LockError> {
    if guard.has_lost() {
        return Some(guard.loss());
    }
    limit.as_ref()?.timer.as_ref().err().cloned()
}

/// Waits for a loss, or the end of `max_hold`.
fn poll_end(
    guard: &impl Guard,
    lost: &mut Option<impl Future<Output = ()> + Unpin>,
    limit: &mut Option<Limit<'_>>,
    context: &mut Context<'_>,
) -> Poll<LockError> {
    if let Some(lost) = lost
        && pin!(lost).poll(context).is_ready()
    {
        return Poll::Ready(guard.loss());
    }
    match limit {
        Some(limit) => limit.poll(context, guard.slot()),
        None => Poll::Pending,
    }
}

impl<F> Drop for Body<'_, F> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// The end of `max_hold`.
struct Limit<'a> {
    max_hold: &'a Duration,
    /// The timer, or why there is none. Without one the body must not run, since nothing would
    /// limit it.
    timer: Result<Pin<Box<Sleep>>, LockError>,
}

impl<'a> Limit<'a> {
    fn start(max_hold: &'a Duration) -> Self {
        let timer = background::sleep_until(Timestamp::now() + *max_hold);
        Self {
            max_hold,
            timer: timer.map(Box::pin),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, slot: &SlotRef) -> Poll<LockError> {
        match &mut self.timer {
            Ok(timer) => timer.as_mut().poll(context).map(|()| {
                LockError::new(LockErrorKind::MaxHoldExceeded)
                    .with_name(slot.name.clone())
                    .with_detail(format!("{:?}", self.max_hold))
            }),
            Err(error) => Poll::Ready(error.clone()),
        }
    }
}

/// A place for a body's output while the release is confirmed.
///
/// The place is in the caller's future, which is `Send` only if the output is. If the output is not
/// `Send`, it is not kept: the guard's drop begins the release, and the caller does not wait for
/// the answer. So the future of a body that is `Send` stays `Send`.
pub trait Keep<T>: Default {
    /// Keeps the output. Returns it if it cannot be kept.
    fn keep(&mut self, ended: Result<T, LockError>) -> Option<Result<T, LockError>>;

    /// Tells whether an output is kept.
    fn has_kept(&self) -> bool;

    /// Takes the output that was kept.
    fn take(&mut self) -> Option<Result<T, LockError>>;
}

/// Polls the body to its end and then, if its output can be kept, the release to its end.
///
/// It is no method of [`Keep`]. When the compiler checks whether a future is `Send`, it ignores
/// lifetimes, and so accepts no implementation of a trait that holds for particular ones.
pub(crate) fn until_released<T, K: Keep<T>>(
    mut keep: K,
    mut body: Pin<&mut impl Future<Output = Result<T, LockError>>>,
    mut release: Pin<&mut impl Future<Output = Result<(), LockError>>>,
) -> impl Future<Output = (Result<T, LockError>, Result<(), LockError>)> {
    poll_fn(move |context| {
        if !keep.has_kept() {
            let ended = ready!(body.as_mut().poll(context));
            if let Some(ended) = keep.keep(ended) {
                return Poll::Ready((ended, Ok(())));
            }
        }
        let released = ready!(release.as_mut().poll(context));
        match keep.take() {
            Some(ended) => Poll::Ready((ended, released)),
            None => unreachable!("what the body returned was kept"),
        }
    })
}

/// The place that keeps an output.
pub struct Kept<T>(Option<Result<T, LockError>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Keep<T> for Kept<T> {
    fn keep(&mut self, ended: Result<T, LockError>) -> Option<Result<T, LockError>> {
        self.0 = Some(ended);
        None
    }

    fn has_kept(&self) -> bool {
        self.0.is_some()
    }

    fn take(&mut self) -> Option<Result<T, LockError>> {
        self.0.take()
    }
}

/// The place that keeps nothing.
#[derive(Default)]
pub struct NotKept;

impl<T> Keep<T> for NotKept {
    fn keep(&mut self, ended: Result<T, LockError>) -> Option<Result<T, LockError>> {
        Some(ended)
    }

    fn has_kept(&self) -> bool {
        false
    }

    fn take(&mut self) -> Option<Result<T, LockError>> {
        None
    }
}
