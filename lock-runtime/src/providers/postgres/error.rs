//! What the client's errors mean for a lock.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use crate::providers::sql_session::{ClientError, Refusal};
use crate::{LockError, LockErrorKind};

/// Makes the library's error of one of the client's. Neither the client's errors nor the server's
/// hold a password.
pub(super) fn lock_error(error: tokio_postgres::Error) -> LockError {
    let (kind, what) = classify(&error);
    // The cause is in the text too, since it is what a person needs and a log line may be all
    // that is seen of it.
    let detail = format!("{what} ({})", text(&error));
    LockError::new(kind).with_detail(detail).with_source(error)
}

/// Makes the library's error of one that came while connecting.
pub(super) fn connect_error(error: tokio_postgres::Error) -> LockError {
    match error.to_string().as_str() {
        "connection closed" | "error communicating with the server" => {
            LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail(format!(
                    "what answers there is no PostgreSQL server, or hung up ({})",
                    text(&error)
                ))
                .with_source(error)
        }
        _ => lock_error(error),
    }
}

fn classify(error: &tokio_postgres::Error) -> (LockErrorKind, &'static str) {
    use LockErrorKind::{InvalidConfig, ProviderUnavailable};
    let Some(code) = error.code() else {
        return match error.to_string().as_str() {
            "invalid connection string" | "invalid configuration" => (
                InvalidConfig,
                "the server cannot be connected to in this way",
            ),
            "authentication error" => (
                InvalidConfig,
                "the server and the client do not agree on how to authenticate",
            ),
            "error performing TLS handshake" if text(error).contains("does not support TLS") => (
                InvalidConfig,
                "the server does not offer TLS, which is required unless `sslmode=disable` is set",
            ),
            "error parsing response from server" | "unexpected message from server" => {
                (InvalidConfig, "what answers there is no PostgreSQL server")
            }
            "error performing TLS handshake" => (
                ProviderUnavailable,
                "the TLS connection to the server failed",
            ),
            _ => (ProviderUnavailable, "the connection to the server failed"),
        };
    };
    match code.code() {
        // Class 28: invalid authorization specification.
        class if class.starts_with("28") => (InvalidConfig, "the server does not let this user in"),
        _ if *code == SqlState::INVALID_CATALOG_NAME => {
            (InvalidConfig, "the server has no such database")
        }
        _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => (
            InvalidConfig,
            "the server does not let this user do what locks need",
        ),
        _ if *code == SqlState::TOO_MANY_CONNECTIONS => {
            (ProviderUnavailable, "the server takes no more connections")
        }
        _ if *code == SqlState::OUT_OF_MEMORY => (
            ProviderUnavailable,
            "the server's table of locks is full; raise `max_locks_per_transaction`",
        ),
        // Class 57: operator intervention.
        class if class.starts_with("57P") => (
            ProviderUnavailable,
            "the server is starting, stopping, or has ended the session",
        ),
        _ => (ProviderUnavailable, "the server answered with an error"),
    }
}

impl ClientError for tokio_postgres::Error {
    fn into_lock_error(self) -> LockError {
        lock_error(self)
    }

    fn is_from_server(&self) -> bool {
        self.code().is_some()
    }

    fn ends_a_wait(&self) -> bool {
        is_cancelled(self) || self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }
}

/// Says what a server that is up refuses with this error: one that is starting or stopping refuses
/// nothing.
pub(super) fn refusal(error: &LockError) -> Option<Refusal> {
    let cause = error.source()?.downcast_ref::<tokio_postgres::Error>()?;
    match cause.code()? {
        code if *code == SqlState::TOO_MANY_CONNECTIONS => Some(Refusal::Session),
        code if *code == SqlState::OUT_OF_MEMORY => Some(Refusal::Lock),
        // Class 57: operator intervention.
        code if code.code().starts_with("57P") => None,
        _ => Some(Refusal::Other),
    }
}

/// Says whether somebody cancelled the statement.
pub(super) fn is_cancelled(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// Writes the error and what caused it.
pub(super) fn text(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return format!("{}: {}", answer.code().code(), answer.message());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
