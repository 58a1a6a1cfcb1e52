//! What the client's errors mean for a lock.

use std::borrow::Cow;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::name::Escaped;
use crate::providers::kit::error::{invalid, unsupported};
use crate::providers::kit::fault::{Fault, caused};
use crate::{LockError, LockErrorKind};

/// Says what an error means for the request and the connection.
pub(super) fn fault(error: &RedisError) -> Fault {
    if error.is_timeout() {
        return Fault::Unanswered;
    }
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed => {
            return Fault::Interrupted;
        }
        _ => {}
    }
    match code(error).as_deref() {
        // A demoted, loading or cut-off server: behind the same name there may be another one.
        Some(
            "NOAUTH" | "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED"
            | "ASK",
        ) => Fault::Interrupted,
        Some("OOM" | "BUSY" | "MISCONF" | "NOREPLICAS") => Fault::Busy,
        _ => Fault::Refused,
    }
}

/// Returns the code of an error, also of one that was raised within a script: there Redis 6.2 puts
/// other words before it.
fn code(error: &RedisError) -> Option<Cow<'_, str>> {
    let code = error.code()?;
    if code != "ERR" && !code.starts_with(IN_SCRIPT) {
        return Some(code.into());
    }
    let text = format!("{code} {}", error.detail().unwrap_or_default());
    let within = text.rsplit_once(IN_SCRIPT).and_then(|(_, rest)| {
        // The line, and then the error as the command gave it.
        let (line, error) = rest.trim_start().split_once(": ")?;
        let word = error.trim_start_matches('-').split(' ').next()?;
        let is_code = word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        (line.parse::<u32>().is_ok() && is_code).then(|| word.to_owned())
    });
    Some(within.map_or(code.into(), Cow::Owned))
}

const IN_SCRIPT: &str = "@user_script:";

/// Says whether a key holds something of another type than its command is for.
pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    code(error).as_deref() == Some("WRONGTYPE")
}

/// Says whether the ACL forbids a command, outside a script or within one. Within one the answer is
/// an `ERR` with a text that depends on the version.
fn is_forbidden(error: &RedisError) -> bool {
    let within = ["user executing the script can't", "ACL failure in script"];
    let text = error.detail().unwrap_or_default();
    code(error).as_deref() == Some("NOPERM") || within.iter().any(|words| text.contains(words))
}

/// Says whether the server refused the database. The client puts these words in place of the code
/// of any error, be it that the server is busy.
fn refuses_database(text: &str) -> bool {
    let refusals = [
        "out of range",
        "invalid DB index",
        "not allowed",
        "permission",
    ];
    text.starts_with("Redis server refused to switch database")
        && refusals.iter().any(|words| text.contains(words))
}

/// Makes the library's error of one of the client's. The client's errors hold no password, but a
/// server repeats the words of a command that it does not know, and those of `HELLO` hold one.
pub(super) fn lock_error(error: RedisError) -> LockError {
    lock_error_without(None, error)
}

/// Makes the same of a request that holds this secret: what repeats it is not shown.
pub(super) fn lock_error_without(secret: Option<&str>, error: RedisError) -> LockError {
    let text = error.to_string();
    let repeats_secret =
        |text: &str| secret.is_some_and(|secret| !secret.is_empty() && text.contains(secret));
    if let Some((unknown, _)) = text.split_once(", with args") {
        if unknown.contains("SELECT") {
            return unsupported(NO_DATABASE);
        }
        let detail = match repeats_secret(unknown) {
            true => TOO_OLD.to_owned(),
            false => format!("{TOO_OLD} ({unknown})"),
        };
        return unsupported(detail);
    }
    let code = code(&error);
    let (kind, detail) = match (error.kind(), code.as_deref()) {
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
        _ if refuses_database(&text) => (
            LockErrorKind::InvalidConfig,
            "the server does not give this user the database that is asked for",
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
            LockErrorKind::InvalidConfig,
            "a key that the lock needs holds a value of another type",
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
    if repeats_secret(&text) {
        return LockError::new(kind).with_detail(detail);
    }
    caused(kind, detail, text, error)
}

/// Says that a key of a lock holds what somebody else has put there: no repetition mends that.
pub(super) fn no_lock(key: &str, what: &str) -> LockError {
    invalid(format!("the key `{}` holds {what}", Escaped(key)))
}

/// Says that an answer came over a connection which was not to be used any more.
pub(super) fn given_up() -> RedisError {
    (
        ErrorKind::Io,
        "the connection was given up before it answered",
    )
        .into()
}

/// Says whether the server does not know the script that it was to run.
pub(super) fn is_forgotten(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The command comes before `HELLO`, which would tell that it is a sentinel.
const NO_DATABASE: &str = "the server has no databases, as a sentinel; for sentinels, write \
    redis-sentinel://host:26379/database?service=name";

pub(super) const TOO_OLD: &str = "the server is too old: expected Redis 6.2 or newer, or Valkey";

#[cfg(test)]
mod tests {
    use super::*;

    fn error(answer: &str) -> RedisError {
        let answer = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes());
        answer.unwrap().extract_error().unwrap_err()
    }

    #[test]
    fn a_busy_server_refuses_no_database() {
        let refused = |answer: &'static str| {
            let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
            let words = "Redis server refused to switch database";
            lock_error((kind, words, answer.to_owned()).into()).kind()
        };
        for answer in [
            "DB index is out of range",
            "this user has no permissions to run the 'select' command",
            "SELECT is not allowed in cluster mode",
        ] {
            assert_eq!(refused(answer), LockErrorKind::InvalidConfig, "{answer}");
        }
        let busy = "Redis is busy running a script. You can only call SCRIPT KILL";
        assert_eq!(refused(busy), LockErrorKind::ProviderUnavailable);
    }

    #[test]
    fn errors_within_scripts_keep_their_code_whatever_the_version() {
        let cases = [
            (
                "READONLY You can't write against a read only replica.",
                "READONLY",
            ),
            (
                "READONLY You can't write against a read only replica. script: f0, on @user_script:7.",
                "READONLY",
            ),
            (
                "@user_script: 7: -READONLY You can't write against a read only replica.",
                "READONLY",
            ),
            (
                "ERR Error running script (call to f0): @user_script:4: @user_script: 4: -READONLY You can't write",
                "READONLY",
            ),
            (
                "ERR Error running script (call to f0): @user_script:135: WRONGTYPE Operation against a key",
                "WRONGTYPE",
            ),
            (
                "@user_script: 7: -OOM command not allowed when used memory > 'maxmemory'.",
                "OOM",
            ),
            (
                "@user_script: 7: -NOREPLICAS Not enough good replicas",
                "NOREPLICAS",
            ),
            ("ERR unknown command", "ERR"),
            (
                "ERR Error running script (call to f0): @user_script:4: bad argument",
                "ERR",
            ),
        ];
        for (answer, expected) in cases {
            assert_eq!(code(&error(answer)).as_deref(), Some(expected), "{answer}");
        }
        assert_eq!(fault(&error(cases[2].0)), Fault::Interrupted);
        assert_eq!(fault(&error(cases[3].0)), Fault::Interrupted);
        assert_eq!(fault(&error(cases[5].0)), Fault::Busy);
        assert_eq!(fault(&error(cases[4].0)), Fault::Refused);
    }
}
