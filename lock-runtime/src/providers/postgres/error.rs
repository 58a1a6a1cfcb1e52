//! What the client's errors mean for a lock.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use crate::{LockError, LockErrorKind};

/// The library's error for one of the client's. Neither the client's errors nor the server's hold
/// a password.
pub(super) fn lock_error(error: tokio_postgres::Error) -> LockError {
    let (kind, what) = classify(&error);
    // The cause is in the text too, since it is what a person needs and a log line may be all
    // that is seen of it.
    let detail = format!("{what} ({})", text(&error));
    LockError::new(kind).with_detail(detail).with_source(error)
}

/// The same for an error of connecting.
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

/// Whether the server takes no more sessions.
pub(super) fn is_crowded(error: &LockError) -> bool {
    code_of(error) == Some(&SqlState::TOO_MANY_CONNECTIONS)
}

/// Whether the server's table of locks is full.
pub(super) fn is_full(error: &LockError) -> bool {
    code_of(error) == Some(&SqlState::OUT_OF_MEMORY)
}

/// Whether it is the word of a server that is up: one that takes no more sessions, for example.
pub(super) fn is_answer(error: &LockError) -> bool {
    code_of(error).is_some_and(|code| !code.code().starts_with("57P"))
}

fn code_of(error: &LockError) -> Option<&SqlState> {
    let cause = error.source()?.downcast_ref::<tokio_postgres::Error>();
    cause.and_then(tokio_postgres::Error::code)
}

/// Whether a wait was ended, by somebody or by its bound.
pub(super) fn ends_a_wait(error: &tokio_postgres::Error) -> bool {
    is_cancelled(error) || error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Whether somebody cancelled the statement.
pub(super) fn is_cancelled(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// The error and what caused it.
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

pub(super) fn unanswered(patience: std::time::Duration) -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail(format!("the server did not answer within {patience:?}"))
}
