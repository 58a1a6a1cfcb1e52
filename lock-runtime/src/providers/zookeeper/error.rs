//! What the client's errors mean for a lock.

use zookeeper_client::Error;

use crate::{LockError, LockErrorKind};

/// What an error says about the request and the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is gone; the session may live on. Whether the request was carried out is not
    /// known.
    Interrupted,
    /// The session has ended, or its client has.
    Ended,
    /// The server answered that it cannot do it now.
    Busy,
    /// The server answered with a refusal that will be the same next time.
    Refused,
}

pub(super) fn fault(error: &Error) -> Fault {
    match error {
        // The custom ones are those of the socket.
        Error::ConnectionLoss | Error::Timeout | Error::Custom(_) => Fault::Interrupted,
        Error::SessionExpired
        | Error::SessionMoved
        | Error::ClientClosed
        | Error::AuthFailed
        | Error::NoHosts
        // The client lost track of what it asked for.
        | Error::UnexpectedError(_)
        | Error::UnmarshalError { .. } => Fault::Ended,
        Error::Throttled | Error::QuotaExceeded | Error::NotReadOnly => Fault::Busy,
        _ => Fault::Refused,
    }
}

/// The library's error for one of the client's. The client's errors hold no password.
pub(super) fn lock_error(error: Error) -> LockError {
    use LockErrorKind::{InvalidConfig, ProviderUnavailable, Unsupported};
    let (kind, detail) = match &error {
        Error::AuthFailed => (InvalidConfig, "the server refuses the credentials"),
        Error::NoAuth => (
            InvalidConfig,
            "the ACL of the lock's nodes does not let this user do what locks need",
        ),
        Error::InvalidAcl => (InvalidConfig, "the server does not take the ACL"),
        Error::NoChildrenForEphemerals => (
            InvalidConfig,
            "the lock's node, or its directory, is an ephemeral node of somebody else",
        ),
        Error::BadArguments(_) => (InvalidConfig, "the client does not take the settings"),
        Error::Unimplemented => (
            Unsupported,
            "the server is too old: expected ZooKeeper 3.5 or newer",
        ),
        // Of a node with a sequence number, whose next one is taken.
        Error::NodeExists => (
            ProviderUnavailable,
            "the lock's node has used up its sequence numbers; they begin anew when nobody holds \
             the lock or waits for it",
        ),
        Error::NoHosts | Error::Timeout => {
            (ProviderUnavailable, "no server of the ensemble answers")
        }
        Error::ConnectionLoss | Error::Custom(_) => (
            ProviderUnavailable,
            "the connection to the ensemble is lost",
        ),
        Error::SessionExpired | Error::SessionMoved | Error::ClientClosed => {
            (ProviderUnavailable, "the session has ended")
        }
        _ => (ProviderUnavailable, "the server answered with an error"),
    };
    // The cause is in the text too: a log line may be all that is seen of it.
    let detail = format!("{detail} ({error})");
    LockError::new(kind).with_detail(detail).with_source(error)
}

pub(super) fn unanswered() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the ensemble did not answer in time")
}

pub(super) fn lost(why: &str) -> LockError {
    LockError::new(LockErrorKind::Lost).with_detail(why)
}
