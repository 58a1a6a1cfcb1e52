//! What the client's errors mean for a lock.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::{LockError, LockErrorKind};

/// What an error says about the request and the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is gone, or the server is no longer the one to ask. Whether the request was
    /// carried out is not known.
    Broken,
    /// No answer in time. Whether the request was carried out is not known.
    Unanswered,
    /// The server answered that it cannot do it now.
    Busy,
    /// The server answered with a refusal that will be the same next time.
    Refused,
}

impl Fault {
    /// Whether the connection is not to be used any more.
    pub(super) fn is_the_connections(self) -> bool {
        matches!(self, Self::Broken | Self::Unanswered)
    }
}

pub(super) fn fault(error: &RedisError) -> Fault {
    if error.is_timeout() {
        return Fault::Unanswered;
    }
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed => Fault::Broken,
        ErrorKind::Server(
            // A demoted, loading or cut-off server: behind the same name there may be another one.
            ServerErrorKind::ReadOnly
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask,
        ) => Fault::Broken,
        _ => match error.code() {
            Some("NOAUTH") => Fault::Broken,
            Some("OOM" | "BUSY" | "MISCONF" | "NOREPLICAS") => Fault::Busy,
            _ => Fault::Refused,
        },
    }
}

/// Whether the ACL forbids a command, outside a script or within: there the answer is an `ERR`
/// with a text that depends on the version.
fn is_forbidden(error: &RedisError) -> bool {
    let within = ["user executing the script can't", "ACL failure in script"];
    let text = error.detail().unwrap_or_default();
    error.code() == Some("NOPERM") || within.iter().any(|words| text.contains(words))
}

/// The library's error for one of the client's. The client's errors hold no password, but a server
/// repeats the words of a command that it does not know, and those of `HELLO` do.
pub(super) fn lock_error(error: RedisError) -> LockError {
    let text = error.to_string();
    if let Some((unknown, _)) = text.split_once(", with args") {
        let kind = LockErrorKind::Unsupported;
        return LockError::new(kind).with_detail(format!("{TOO_OLD} ({unknown})"));
    }
    let (kind, detail) = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => (
            LockErrorKind::InvalidConfig,
            "the server refuses the user name or password",
        ),
        (_, Some("NOAUTH")) => (
            LockErrorKind::InvalidConfig,
            "the server wants a password, and none is set",
        ),
        _ if is_forbidden(&error) => (
            LockErrorKind::InvalidConfig,
            "the server's ACL does not let this user do what locks need",
        ),
        (_, Some("OOM")) => (
            LockErrorKind::ProviderUnavailable,
            "the server is out of memory and takes no new locks",
        ),
        (_, Some("READONLY")) => (
            LockErrorKind::ProviderUnavailable,
            "the server has become a replica",
        ),
        (_, Some("LOADING")) => (
            LockErrorKind::ProviderUnavailable,
            "the server is still loading its data",
        ),
        (_, Some("WRONGTYPE")) => (
            LockErrorKind::ProviderUnavailable,
            "a key that the lock needs holds something else",
        ),
        (ErrorKind::RESP3NotSupported, _) => (LockErrorKind::Unsupported, TOO_OLD),
        _ if error.is_timeout() => (
            LockErrorKind::ProviderUnavailable,
            "the server did not answer in time",
        ),
        (ErrorKind::Io, _) => (
            LockErrorKind::ProviderUnavailable,
            "the connection to the server failed",
        ),
        (ErrorKind::InvalidClientConfig, _) => (
            LockErrorKind::InvalidConfig,
            "the server cannot be connected to in this way",
        ),
        _ => (
            LockErrorKind::ProviderUnavailable,
            "the server answered with an error",
        ),
    };
    // The cause is in the text too, since it is what a person needs and a log line may be all
    // that is seen of it.
    let detail = format!("{detail} ({text})");
    LockError::new(kind).with_detail(detail).with_source(error)
}

pub(super) const TOO_OLD: &str = "the server is too old: expected Redis 6.2 or newer, or Valkey";
