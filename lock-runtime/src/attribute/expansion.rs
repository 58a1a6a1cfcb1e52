//! What the attribute's expansion calls beside the call itself: outcomes, placeholders, outputs.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;

use crate::body::{Kept, NotKept};
use crate::error::LockError;
use crate::outcome::{FromLockError, Skipped};

/// A namespace for functions that the expansion calls. As methods of it, they keep a short path in
/// the compiler's errors.
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

    /// Makes the value of a placeholder displayable.
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

/// The value of a placeholder. It has no bound, since the compiler would report that a second time.
pub struct Shown<'a, T: ?Sized>(&'a T, fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result);

impl<T: ?Sized> Display for Shown<'_, T> {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.1)(self.0, f)
    }
}

/// Chooses how the output of a body is kept. If the output is `Send`, `keep` is the method of this
/// type. Else it is that of `Unsendable`, to which this type dereferences.
pub struct Output<T>(PhantomData<fn() -> T>);

impl<T> Output<T> {
    /// Infers the output type of this body, and returns the body. A borrow would be stored twice in
    /// the caller's future.
    pub fn of<F: Future<Output = T>>(body: Pin<&mut Option<F>>) -> (Self, Pin<&mut Option<F>>) {
        (Self(PhantomData), body)
    }
}

impl<T: Send> Output<T> {
    /// Makes a place for the output.
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

/// Stands for an output that cannot be sent to another thread, or is not known to be sendable.
pub struct Unsendable;

impl Unsendable {
    /// Makes the place that keeps nothing.
    pub fn keep(&self) -> NotKept {
        NotKept
    }
}
