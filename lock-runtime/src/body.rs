//! Runs a body while a lock is held: acquires, polls the body together with the lease, releases.

use std::cell::OnceCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::acquire::Acquiring;
use crate::clock::Timestamp;
use crate::end::LostSignal;
use crate::error::{LockError, LockErrorKind};
use crate::gate::{SlotRef, Wanted};
use crate::guard::LockGuard;
use crate::telemetry::spans::Call;
use crate::{background, reentrancy};

/// Where the guard lives that the body sees; bound before the body, and so dropped after it.
#[derive(Default)]
pub struct GuardCell(OnceLock<LockGuard>);

impl GuardCell {
    /// Makes an empty cell.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns the guard. The body runs only while there is one.
    pub fn guard(&self) -> &LockGuard {
        match self.0.get() {
            Some(guard) => guard,
            None => unreachable!("the body is polled only after the lock was acquired"),
        }
    }
}

/// Where the guard is while the body runs.
pub(crate) trait GuardPlace {
    fn put(&self, guard: LockGuard) -> &LockGuard;
}

impl GuardPlace for &GuardCell {
    fn put(&self, guard: LockGuard) -> &LockGuard {
        self.0.get_or_init(|| guard)
    }
}

/// Where the body does not see it, and threads do not matter.
impl GuardPlace for OnceCell<LockGuard> {
    fn put(&self, guard: LockGuard) -> &LockGuard {
        self.get_or_init(|| guard)
    }
}

/// Not an `async fn`, and awaits few futures: this one is a part of every annotated call's.
pub(crate) fn run_in<F, N, K>(
    mut call: Call,
    mut entered: Result<(Option<SlotRef>, Wanted), LockError>,
    max_hold: Option<Duration>,
    place: impl GuardPlace,
    body: Pin<&mut Option<F>>,
    not_run: N,
) -> impl Future<Output = F::Output>
where
    F: Future,
    N: FnOnce(LockError) -> F::Output,
    K: Keep<F::Output>,
{
    let mut body = Body(body);
    async move {
        // Captured first, and so dropped before the guard when the caller drops this half-way.
        let _ = &body;
        let acquired = match &mut entered {
            Ok((slot, wanted)) => Acquiring::new(slot, wanted).await,
            Err(error) => Err(error.clone()),
        };
        let held = |acquired| {
            let acquired: LockGuard = acquired;
            call.acquired(|| acquired.fencing_token());
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

struct Body<'a, F>(Pin<&'a mut Option<F>>);

impl<F: Future> Body<'_, F> {
    /// Polls the body to its end, but no longer than the lock is held.
    fn while_held(
        &mut self,
        guard: &LockGuard,
        max_hold: Option<&Duration>,
    ) -> impl Future<Output = Result<F::Output, LockError>> {
        let mut limit = max_hold.map(Limit::start);
        if let (Some(max_hold), Some(lease)) = (max_hold, guard.hold()) {
            lease.renew_until(Timestamp::now() + *max_hold);
        }
        let mut lost = guard.hold().map(|_| guard.lost());
        poll_fn(move |context| {
            let Some(body) = self.0.as_mut().as_pin_mut() else {
                unreachable!("the body is there until its end")
            };
            let ended = ready!(poll_held(body, guard, &mut lost, &mut limit, context));
            // What is left of the body goes while the lock is still held.
            self.0.set(None);
            Poll::Ready(ended)
        })
    }
}

/// Polls the body, unless it may not go on.
fn poll_held<F: Future>(
    body: Pin<&mut F>,
    guard: &LockGuard,
    lost: &mut Option<LostSignal>,
    limit: &mut Option<Limit<'_>>,
    context: &mut Context<'_>,
) -> Poll<Result<F::Output, LockError>> {
    if guard.is_lost() {
        return Poll::Ready(Err(guard.loss()));
    }
    if let Some(Limit {
        timer: Err(error), ..
    }) = limit
    {
        return Poll::Ready(Err(error.clone()));
    }
    let polled = {
        let _polling = reentrancy::enter(guard.slot().address());
        body.poll(context)
    };
    if let Poll::Ready(output) = polled {
        return Poll::Ready(Ok(output));
    }
    // Asked after the body, many of which need not wait: then nothing has to be set up.
    if let Some(lost) = lost
        && pin!(lost).poll(context).is_ready()
    {
        return Poll::Ready(Err(guard.loss()));
    }
    if let Some(limit) = limit
        && let Poll::Ready(error) = limit.poll(context, guard)
    {
        return Poll::Ready(Err(error));
    }
    Poll::Pending
}

impl<F> Drop for Body<'_, F> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// The end of `max_hold`.
struct Limit<'a> {
    max_hold: &'a Duration,
    /// Without a timer there is no limit, and so nothing is run.
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

    fn poll(&mut self, context: &mut Context<'_>, guard: &LockGuard) -> Poll<LockError> {
        match &mut self.timer {
            Ok(timer) => timer.as_mut().poll(context).map(|()| {
                LockError::new(LockErrorKind::MaxHoldExceeded)
                    .with_name(guard.name().clone())
                    .with_detail(format!("{:?}", self.max_hold))
            }),
            Err(error) => Poll::Ready(error.clone()),
        }
    }
}

/// Where a body's output is while the release is confirmed.
///
/// It is in the caller's future then, which is `Send` only if the output is. For an output that is
/// not, nothing waits for the release, which the guard's drop begins: so the future of a body that
/// is `Send` stays so.
pub trait Keep<T>: Default {
    /// Keeps the output, or gives it back if it cannot be kept.
    fn keep(&mut self, ended: Result<T, LockError>) -> Option<Result<T, LockError>>;

    /// Whether something is kept.
    fn has_kept(&self) -> bool;

    /// Takes what was kept.
    fn take(&mut self) -> Option<Result<T, LockError>>;
}

/// Polls the body to its end, and then, if its output can be kept, the release to its own.
///
/// No method of [`Keep`]: whether a future is `Send` is asked without regard to lifetimes, which an
/// implementation has to agree with.
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

/// Keeps an output.
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

/// Keeps nothing.
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
