//! A reader that becomes the writer: the caller's side, from the reader's guard to the writer's.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::acquire::{WITHDRAWAL, end_of_wait};
use crate::background;
use crate::clock::{Span, Timestamp};
use crate::error::{LockError, LockErrorKind};
use crate::future::{First, select};
use crate::gate::Upgraded;
use crate::reentrancy;
use crate::shared_guard::{RwLockUpgradeableReadGuard, RwLockWriteGuard};
use crate::telemetry::metrics::Attempt;

/// Why a reader has not become the writer, with the reader, if it is still one.
///
/// It converts to the [`LockError`], which ends the reader.
pub struct UpgradeError(Box<Failed>);

struct Failed {
    error: LockError,
    guard: Option<RwLockUpgradeableReadGuard>,
}

impl UpgradeError {
    fn new(error: LockError, guard: RwLockUpgradeableReadGuard) -> Self {
        let guard = Some(guard).filter(|guard| !guard.is_lost());
        Self(Box::new(Failed { error, guard }))
    }

    /// Returns what went wrong.
    pub fn kind(&self) -> LockErrorKind {
        self.0.error.kind()
    }

    /// Returns the error without the reader.
    pub fn error(&self) -> &LockError {
        &self.0.error
    }

    /// Returns the reader, which is still one. `None` if it is lost.
    pub fn into_guard(self) -> Option<RwLockUpgradeableReadGuard> {
        self.0.guard
    }
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.error, f)
    }
}

impl fmt::Debug for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeError")
            .field("error", &self.0.error)
            .field("guard", &self.0.guard)
            .finish()
    }
}

impl std::error::Error for UpgradeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.error.source()
    }
}

impl From<UpgradeError> for LockError {
    fn from(failed: UpgradeError) -> Self {
        failed.0.error
    }
}

impl RwLockUpgradeableReadGuard {
    /// Becomes the writer, and waits for that as long as it takes: until the other readers have
    /// left. It goes before the writers who wait, and readers that come meanwhile wait for it.
    ///
    /// # Errors
    ///
    /// [`Lost`](LockErrorKind::Lost) if the reader is lost, before or meanwhile. Then the error has
    /// no guard. [`WouldDeadlock`](LockErrorKind::WouldDeadlock) if the calling task reads through
    /// the attribute, and the kinds of [`DistributedLock::acquire`](crate::DistributedLock::acquire)
    /// for what went wrong. Then the error has the guard of the reader, which is still one.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the reader is given back in the background, and so is the writer if
    /// it has become that by then.
    pub async fn upgrade(self) -> Result<RwLockWriteGuard, UpgradeError> {
        upgrade(self, Span::NONE, pending()).await
    }

    /// Becomes the writer, and waits for that at most this long. A timeout of zero tries once.
    ///
    /// After a timeout the reader is still one, and others may read beside it again. There is one
    /// exception: if the server does not answer, and tells only later that it had made the reader
    /// the writer, the reader is lost. Until the server has answered, a further upgrade of that reader
    /// waits for this before it asks, and one with a timeout of zero fails.
    ///
    /// # Errors
    ///
    /// As [`upgrade`](Self::upgrade). [`TimedOut`](LockErrorKind::TimedOut) if others still read
    /// after this time, and [`Contended`](LockErrorKind::Contended) if a timeout of zero finds
    /// others reading.
    ///
    /// # Cancel safety
    ///
    /// As [`upgrade`](Self::upgrade).
    pub async fn upgrade_for(self, timeout: Duration) -> Result<RwLockWriteGuard, UpgradeError> {
        upgrade(self, Span::of(timeout), pending()).await
    }
}

/// Becomes the writer, unless `given_up` resolves before.
pub(crate) async fn upgrade(
    guard: RwLockUpgradeableReadGuard,
    timeout: Span,
    given_up: impl Future<Output = ()>,
) -> Result<RwLockWriteGuard, UpgradeError> {
    let attempt = Attempt::begin("", "write", || guard.0.slot().source().name());
    let upgraded = match begin(&guard, timeout).await {
        Ok(until) => ended(&guard, timeout, until, given_up).await,
        Err(error) => Err(error),
    };
    match upgraded {
        Ok(upgraded) => match guard.0.upgraded(upgraded, attempt.succeeded()) {
            Ok(guard) => Ok(guard),
            Err(error) => Err(UpgradeError(Box::new(Failed { error, guard: None }))),
        },
        Err(error) => {
            attempt.failed(error.kind());
            Err(UpgradeError::new(error, guard))
        }
    }
}

/// Begins the upgrade, after an earlier one has been taken back. Returns when the wait for it ends,
/// if ever.
async fn begin(guard: &RwLockUpgradeableReadGuard, timeout: Span) -> Result<Timestamp, LockError> {
    let slot = guard.0.slot();
    if reentrancy::holds(slot.address()) {
        return Err(slot.error(LockErrorKind::WouldDeadlock));
    }
    let facts = slot.source().ask();
    let facts = facts.map_err(|error| error.with_name(slot.name.clone()))?;
    let until = end_of_wait(timeout, &facts.capabilities);
    if let Some(earlier) = guard.0.earlier_upgrade()
        && !timeout.is_zero()
    {
        let is_taken_back = match until {
            Timestamp::NONE => {
                earlier.ended().await;
                true
            }
            until => background::within(until.remaining(), earlier.ended())
                .await
                .is_some(),
        };
        if !is_taken_back {
            return Err(slot.earlier_upgrade_goes_on());
        }
    }
    guard.0.begin_upgrade(!timeout.is_zero())?;
    Ok(until)
}

/// Waits for the end of an upgrade that has begun.
async fn ended(
    guard: &RwLockUpgradeableReadGuard,
    timeout: Span,
    until: Timestamp,
    given_up: impl Future<Output = ()>,
) -> Result<Upgraded, LockError> {
    let slot = guard.0.slot();
    let upgraded = poll_fn(|context| poll(guard, context));
    let timer = async {
        match until {
            Timestamp::NONE => pending().await,
            until => match background::sleep_until(until) {
                Ok(timer) => {
                    timer.await;
                    Answer::Late
                }
                Err(error) => Answer::Failed(error),
            },
        }
    };
    let answer = match select(upgraded, select(timer, given_up)).await {
        First::Left(answer) | First::Right(First::Left(answer)) => answer,
        First::Right(First::Right(())) => Answer::Late,
    };
    let instead = match answer {
        Answer::Ended(ended) => return ended,
        Answer::Late => None,
        Answer::Deadlock => Some(slot.error(LockErrorKind::WouldDeadlock)),
        Answer::Failed(error) => Some(error.with_name(slot.name.clone())),
    };
    let (late, call) = slot.stop_upgrade(timeout.get().unwrap_or_default());
    let error = instead.unwrap_or(match timeout.is_zero() {
        true => slot
            .error(LockErrorKind::ProviderUnavailable)
            .with_detail("the provider did not answer"),
        false => late,
    });
    // The answer says whether the reader is still one.
    let answer = poll_fn(|context| guard.0.poll_upgrade(context));
    match background::within(WITHDRAWAL, answer).await {
        Some(Ok(upgraded)) => Ok(upgraded),
        Some(Err(ended)) => Err(match ended.kind() {
            LockErrorKind::Contended | LockErrorKind::TimedOut => error,
            _ => ended,
        }),
        None if slot.leave_upgrade() => {
            let call = call.filter(|call| call.is_contended() && !timeout.is_zero());
            Err(match (error.kind(), call) {
                (LockErrorKind::ProviderUnavailable, Some(call)) => {
                    let late = slot.error(LockErrorKind::TimedOut);
                    late.held_by(call.holder())
                }
                _ => error,
            })
        }
        // It has come just now.
        None => poll_fn(|context| guard.0.poll_upgrade(context)).await,
    }
}

/// What a wait for an upgrade ends with.
enum Answer {
    Ended(Result<Upgraded, LockError>),
    Late,
    Deadlock,
    Failed(LockError),
}

fn poll(guard: &RwLockUpgradeableReadGuard, context: &Context<'_>) -> Poll<Answer> {
    match guard.0.poll_upgrade(context) {
        Poll::Ready(answer) => Poll::Ready(Answer::Ended(answer)),
        // The wait may have begun before the body that now polls it.
        Poll::Pending if reentrancy::holds(guard.0.slot().address()) => {
            Poll::Ready(Answer::Deadlock)
        }
        Poll::Pending => Poll::Pending,
    }
}
