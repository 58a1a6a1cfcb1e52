//! `Skipped` and `FromLockError`: what the caller of an annotated function gets when the body did
//! not run, or not to its end.

use crate::error::LockError;

/// A return type that can say "the body did not run", for `on_unavailable = "skip"`.
///
/// It is implemented for `()`, `Option<T>` (`None`) and `Result<S, E>` (`Ok` of a skipped `S`,
/// where `E: From<LockError>`). Implement it for types of your own.
///
/// Only contention is skipped silently. `Result` returns every other error, such as a provider that
/// fails or a lock that is lost, as `Err`. Every other type is skipped then, and the error is
/// logged at ERROR.
///
/// # Examples
///
/// ```
/// use lock_runtime::Skipped;
///
/// enum Report {
///     Sent(usize),
///     LeftToAnotherReplica,
/// }
///
/// impl Skipped for Report {
///     fn skipped() -> Self {
///         Report::LeftToAnotherReplica
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`on_unavailable = \"skip\"` needs a return type that can say \"did not run\", and `{Self}` cannot",
    label = "expected `()`, `Option<T>`, `Result<S, E>` with `S: Skipped` and `E: From<LockError>`, or a type that implements `Skipped`",
    note = "return `Option<{Self}>`, implement `Skipped` for `{Self}`, or give `on_unavailable` a closure that makes one from the `LockError`"
)]
pub trait Skipped {
    /// Returns the value that says "did not run".
    fn skipped() -> Self;

    /// Returns the value for this error. Logs the error if the value does not carry it and it is no
    /// contention.
    #[doc(hidden)]
    fn not_run(error: LockError) -> Self
    where
        Self: Sized,
    {
        if !error.is_contention() {
            tracing::error!(
                %error,
                source = crate::error::source_text(&error),
                "skipped, though not because of contention"
            );
        }
        Self::skipped()
    }
}

impl Skipped for () {
    fn skipped() -> Self {}
}

impl<T> Skipped for Option<T> {
    fn skipped() -> Self {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<S: Skipped, E: From<LockError>> Skipped for Result<S, E> {
    fn skipped() -> Self {
        Ok(S::skipped())
    }

    fn not_run(error: LockError) -> Self {
        if error.is_contention() {
            Ok(S::skipped())
        } else {
            Err(error.into())
        }
    }
}

/// A return type that can carry a [`LockError`], for `on_unavailable = "error"`.
#[diagnostic::on_unimplemented(
    message = "a locked function must be able to return a `LockError`, and `{Self}` cannot",
    label = "expected `Result<T, E>` with `E: From<LockError>`",
    note = "return `Result<_, LockError>`, implement `From<LockError>` for the error type, or write `on_unavailable = \"skip\"` for `()` and `Option<T>`, or a closure that makes the value from the `LockError`"
)]
pub trait FromLockError {
    /// Returns the value that carries this error.
    fn from_lock_error(error: LockError) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<LockError>> FromLockError for Result<T, E> {
    fn from_lock_error(error: LockError) -> Self {
        Err(error.into())
    }
}
