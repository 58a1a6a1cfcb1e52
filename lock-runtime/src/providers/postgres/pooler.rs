//! Connection poolers, which may give every transaction or statement another session.

use tokio_postgres::Client;

use super::connect::{ask, ask_row, connect, within_limit};
use super::error::lock_error;
use super::settings::Settings;
use crate::{LockError, LockErrorKind};

/// Attempts to catch a pooler that exchanges sessions.
const CHECKS: usize = 3;

/// Refuses a connection pooler that gives every transaction or statement another session.
pub(super) async fn refuse_pooler(settings: &Settings) -> Result<(), LockError> {
    within_limit(settings, look_for_pooler(settings)).await
}

/// Compares the sessions of two clients that are connected at the same time, one of them inside a
/// transaction: there are two, unless somebody between shares them out.
async fn look_for_pooler(settings: &Settings) -> Result<(), LockError> {
    // The role's search path applies here.
    const PID: &str = "SELECT pg_catalog.pg_backend_pid()";
    let one = connect(settings, settings.lease, None).await?.client;
    let other = connect(settings, settings.lease, None).await?.client;
    for _ in 0..CHECKS {
        let first: i32 = ask(&one, PID).await.map_err(lock_error)?;
        // A pooler that serves its sessions in turn changes it here, and one that prefers the last
        // session further on.
        let next: i32 = ask(&one, PID).await.map_err(lock_error)?;
        if first != next {
            return Err(pooled());
        }
        if let Err(error) = other.batch_execute("BEGIN").await {
            return Err(match error.as_db_error() {
                Some(answer) if answer.message().contains("pool") => pooled(),
                _ => lock_error(error),
            });
        }
        let second: i32 = ask(&other, PID).await.map_err(lock_error)?;
        if first == second {
            return Err(pooled());
        }
        let again: i32 = ask(&one, PID).await.map_err(lock_error)?;
        if first != again {
            return Err(pooled());
        }
        other.batch_execute("ROLLBACK").await.map_err(lock_error)?;
    }
    Ok(())
}

/// Makes the error of a session that is not ours alone.
pub(super) fn pooled() -> LockError {
    LockError::new(LockErrorKind::Unsupported).with_detail(
        "a connection pooler exchanges the session on the server between transactions: connect to \
         the server itself, or to a pool in session mode",
    )
}

/// Marks a session, and returns the mark. A session that is marked is another client's: somebody
/// between shares sessions out.
pub(super) async fn mark(client: &Client) -> Result<String, LockError> {
    let random = getrandom::u64().map_err(|error| {
        LockError::new(LockErrorKind::ProviderUnavailable)
            .with_detail(format!("the system has no random numbers ({error})"))
    })?;
    let mark = format!("{random:016x}");
    let sql = format!(
        "SELECT pg_catalog.current_setting('lock_runtime.session', true), \
         pg_catalog.set_config('lock_runtime.session', '{mark}', false)"
    );
    let row = ask_row(client, &sql).await.map_err(lock_error)?;
    match row.try_get::<_, Option<&str>>(0).map_err(lock_error)? {
        // A mark that was set and reset is empty.
        None | Some("") => Ok(mark),
        Some(_) => Err(pooled()),
    }
}
