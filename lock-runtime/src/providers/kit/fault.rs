//! What an error of a client's says, and the library's error that is made of it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::error::unavailable;
use crate::{LockError, LockErrorKind};

/// What an error says about the request and about the connection or session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is gone, or the server is no longer the one to ask. Whether the request was
    /// carried out is not known.
    Interrupted,
    /// No answer came in time. Whether the request was carried out is not known.
    Unanswered,
    /// The server answered that it cannot do it now.
    Busy,
    /// The server answered with a refusal that will be the same next time.
    Refused,
    /// The session has ended, or its client has.
    Ended,
}

impl Fault {
    /// Says whether the request had no answer, so that the server may have carried it out.
    pub(crate) fn is_uncertain(self) -> bool {
        matches!(self, Self::Interrupted | Self::Unanswered)
    }
}

/// Makes the library's error of a client's, saying what happened: "what (cause)".
///
/// The cause is in the text too, since it is what a person needs and a log line may be all that is
/// seen of it.
pub(crate) fn caused(
    kind: LockErrorKind,
    what: &str,
    cause: impl fmt::Display,
    error: impl Error + Send + Sync + 'static,
) -> LockError {
    LockError::new(kind)
        .with_detail(format!("{what} ({cause})"))
        .with_source(error)
}

/// Makes the error of a server that did not answer within this time.
pub(crate) fn unanswered(limit: Duration) -> LockError {
    unavailable(format!("the server did not answer within {limit:?}"))
}
