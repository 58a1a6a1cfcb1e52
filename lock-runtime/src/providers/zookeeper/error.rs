//! What the client's errors mean for a lock.

use zookeeper_client::Error;

use crate::providers::kit::error::unavailable;
use crate::providers::kit::fault::{Fault, caused};
use crate::{LockError, LockErrorKind};

/// Says what an error means for the request and the session.
pub(super) fn fault(error: &Error) -> Fault {
    match error {
        // The custom ones are those of the socket.
        Error::ConnectionLoss | Error::Custom(_) => Fault::Interrupted,
        Error::Timeout => Fault::Unanswered,
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

/// Makes the library's error of one of the client's. The client's errors hold no password.
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
    let cause = error.to_string();
    caused(kind, detail, cause, error)
}

pub(super) fn unanswered() -> LockError {
    unavailable("the ensemble did not answer in time")
}
