//! What the attribute's expansion needs beside the call itself.

use std::fmt::{self, Display};
use std::future::poll_fn;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use crate::outcome::{FromLockError, Skipped};
use crate::{LockError, LockErrorKind, LockName};

/// The longest `min_hold`.
pub(crate) const LONGEST_MIN_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Refuses limits that contradict themselves or each other.
pub(crate) fn check_holds(
    name: &LockName,
    max_hold: Option<Duration>,
    min_hold: Option<Duration>,
) -> Result<(), LockError> {
    let detail = match (max_hold, min_hold) {
        (Some(Duration::ZERO), _) => "expected a max_hold above zero".to_owned(),
        (_, Some(min)) if min > LONGEST_MIN_HOLD => {
            format!("expected a min_hold of at most 24 h, got {min:?}")
        }
        (Some(max), Some(min)) if min > max => {
            format!("expected a min_hold of at most the max_hold, {max:?}, got {min:?}")
        }
        _ => return Ok(()),
    };
    Err(LockError::new(LockErrorKind::InvalidConfig)
        .with_name(name.clone())
        .with_detail(detail))
}

/// What the expansion calls, as methods: errors of the compiler show this path of them.
pub struct Expansion;

impl Expansion {
    /// Makes the outcome of `on_unavailable = "error"`.
    pub fn or_error<R: FromLockError>(error: LockError) -> R {
        R::from_lock_error(error)
    }

    /// Makes the outcome of `on_unavailable = "skip"`.
    pub fn or_skip<R: Skipped>(error: LockError) -> R {
        R::not_run(error)
    }

    /// Takes the value of a placeholder.
    #[inline]
    pub fn in_name<T: InName + ?Sized>(value: &T) -> Shown<'_, T> {
        Shown(value, T::write)
    }
}

/// A value that can stand in a lock's name: one that has a `Display`.
#[diagnostic::on_unimplemented(
    message = "a value of type `{Self}` cannot stand in a lock's name, it has no `Display`",
    label = "expected a value with `Display`",
    note = "name a field or a method of it that has one, or implement `Display`"
)]
pub trait InName {
    /// Writes the value as `Display` does.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> InName for T {
    #[inline]
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// A value of a placeholder. It needs no bound, which would be reported a second time.
pub struct Shown<'a, T: ?Sized>(&'a T, fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result);

impl<T: ?Sized> Display for Shown<'_, T> {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.1)(self.0, f)
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

/// Finds out how the output of a body can be kept: the method of the type itself is there only if
/// the output is `Send`, and else that of the type that it dereferences to is called.
pub struct Output<T>(PhantomData<fn() -> T>);

impl<T> Output<T> {
    /// The output of this body, which is given back: borrowed, it would be stored twice.
    pub fn of<F: Future<Output = T>>(body: Pin<&mut Option<F>>) -> (Self, Pin<&mut Option<F>>) {
        (Self(PhantomData), body)
    }
}

impl<T: Send> Output<T> {
    /// Makes a place for it.
    pub fn keep(&self) -> Kept<T> {
        Kept::default()
    }
}

impl<T> Deref for Output<T> {
    type Target = Unsendable;

    fn deref(&self) -> &Unsendable {
        &Unsendable
    }
}

/// An output that cannot be sent to another thread, or of which that is not known.
pub struct Unsendable;

impl Unsendable {
    /// Makes no place for it.
    pub fn keep(&self) -> NotKept {
        NotKept
    }
}
