//! What the errors of a database client mean for locks.

use crate::LockError;

/// An error of a database client.
pub(crate) trait ClientError: Send + 'static {
    /// Makes the library's error of it.
    fn into_lock_error(self) -> LockError;

    /// Says whether the server sent it. Any other error is one of the connection.
    fn is_from_server(&self) -> bool;

    /// Says whether it ended a wait, because somebody cancelled the wait or because the wait had
    /// reached its bound.
    fn ends_a_wait(&self) -> bool;
}

/// What a server that is up refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It takes no more sessions.
    Session,
    /// Its table of locks is full.
    Lock,
    /// It answers with any other error.
    Other,
}
