//! What the attribute's expansion needs beside the call itself.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;

use crate::body::{Kept, NotKept};
use crate::error::LockError;
use crate::outcome::{FromLockError, Skipped};

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

/// Finds out how the output of a body can be kept: the method of the type itself is there only if
/// the output is `Send`, and else that of the type that it dereferences to is called.
pub struct Output<T>(PhantomData<fn() -> T>);

impl<T> Output<T> {
    /// Tells the output of this body, which is given back: borrowed, it would be stored twice.
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
