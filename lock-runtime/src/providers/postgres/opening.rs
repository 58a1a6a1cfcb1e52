//! Opening a session: what the server must be, and what the session must be set to.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{FromSqlOwned, Type};
use tokio_postgres::{Client, Connection, Socket};

use super::config::Settings;
use super::error::{lock_error, text, unanswered};
use super::session::{Life, Opened};
use super::tls::Encrypted;
use crate::clock::Timestamp;
use crate::race::{First, first_of};
use crate::{LockError, LockErrorKind};

/// The first that ends a session that is idle for too long.
const OLDEST: i32 = 14_00_00;
/// How often the server looks whether a client that waits for a lock is still connected.
const LOOKS_FOR_CLIENT_EVERY: &str = "5s";
/// The part of a token that says how often the database has been taken over by a standby stands
/// above this many bits, which are microseconds enough until 2095.
const TIMELINE_SHIFT: u32 = 51;
/// 2024-01-01, from where a server's start is counted.
const EPOCH_MICROS: i64 = 1_704_067_200_000_000;
/// Attempts to catch a pooler that exchanges sessions.
const POOLER_CHECKS: usize = 3;

/// Opens a session whose server ends it when it has been idle for a lease.
pub(super) async fn open(settings: &Settings, lease: Duration) -> Result<Opened, LockError> {
    let limit = settings.connect_timeout;
    match tokio::time::timeout(limit, connect_and_set_up(settings, lease)).await {
        Ok(opened) => opened,
        Err(_) => Err(unanswered(limit)),
    }
}

/// Refuses a connection pooler that gives every transaction or statement another session.
pub(super) async fn refuse_pooler(settings: &Settings) -> Result<(), LockError> {
    let limit = settings.connect_timeout;
    match tokio::time::timeout(limit, look_for_pooler(settings)).await {
        Ok(looked) => looked,
        Err(_) => Err(unanswered(limit)),
    }
}

async fn connect_and_set_up(settings: &Settings, lease: Duration) -> Result<Opened, LockError> {
    let (client, life) = connect(settings).await?;
    check_server(&client).await?;
    let token_base = token_base(&client).await?;
    let sent_at = Timestamp::now();
    set_up(&client, lease).await.map_err(lock_error)?;
    let pid = ask(&client, "SELECT pg_backend_pid()")
        .await
        .map_err(lock_error)?;
    Ok(Opened {
        client,
        pid,
        token_base,
        lease,
        life,
        sent_at,
    })
}

async fn connect(settings: &Settings) -> Result<(Client, Arc<Life>), LockError> {
    let connecting = settings.server.connect(settings.tls.clone());
    let (client, connection) = connecting.await.map_err(lock_error)?;
    let life = Arc::<Life>::default();
    tokio::spawn(drive(connection, Arc::clone(&life)));
    Ok((client, life))
}

/// Moves the bytes of a session, until it ends or is given up.
async fn drive(connection: Connection<Socket, Encrypted>, life: Arc<Life>) {
    match first_of(connection, life.ended()).await {
        First::Left(Ok(())) => life.end("the session was closed"),
        First::Left(Err(error)) => {
            life.end(&format!("the server ended the session ({})", text(&error)));
        }
        First::Right(()) => {}
    }
}

/// Unnamed statements, which poolers can take too.
async fn ask<T: FromSqlOwned>(client: &Client, sql: &str) -> Result<T, tokio_postgres::Error> {
    let no_parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 0] = [];
    client
        .query_typed_one(sql, &no_parameters)
        .await?
        .try_get(0)
}

async fn check_server(client: &Client) -> Result<(), LockError> {
    let version = ask(client, "SELECT current_setting('server_version_num')::int4").await;
    let version: i32 = version.map_err(lock_error)?;
    if version < OLDEST {
        return Err(
            LockError::new(LockErrorKind::Unsupported).with_detail(format!(
                "the server is too old: expected PostgreSQL 14 or newer, got {}.{}",
                version / 10_000,
                version % 10_000
            )),
        );
    }
    if ask(client, "SELECT pg_is_in_recovery()")
        .await
        .map_err(lock_error)?
    {
        return Err(LockError::new(LockErrorKind::ProviderUnavailable)
            .with_detail("the server is a standby: expected the primary"));
    }
    Ok(())
}

/// What makes the numbers of transactions grow over what they forget: a crash loses those of the
/// last moments, and so does a standby that takes over, which starts a new timeline.
async fn token_base(client: &Client) -> Result<u64, LockError> {
    let sql =
        "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4";
    let timeline: i32 = ask(client, sql).await.map_err(lock_error)?;
    let sql = "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";
    let started: i64 = ask(client, sql).await.map_err(lock_error)?;
    let since = started.saturating_sub(EPOCH_MICROS).max(0).unsigned_abs();
    Ok((u64::from(timeline.unsigned_abs()) << TIMELINE_SHIFT) + since)
}

/// The lease, and nothing else that could end the session or a wait.
async fn set_up(client: &Client, lease: Duration) -> Result<(), tokio_postgres::Error> {
    let milliseconds = lease.as_nanos().div_ceil(1_000_000);
    client
        .batch_execute(&format!(
            "SET idle_session_timeout = {milliseconds};
             SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN \
             ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', \
              'transaction_timeout');"
        ))
        .await?;
    // Not every system that a server runs on can do this. It only makes the server forget sooner a
    // client that died waiting.
    let looking = format!("SET client_connection_check_interval = '{LOOKS_FOR_CLIENT_EVERY}'");
    if let Err(error) = client.batch_execute(&looking).await
        && error.code().is_none()
    {
        return Err(error);
    }
    Ok(())
}

/// Two clients that are connected at the same time, one of them inside a transaction, are served by
/// two sessions, unless somebody between shares them out.
async fn look_for_pooler(settings: &Settings) -> Result<(), LockError> {
    const PID: &str = "SELECT pg_backend_pid()";
    let (one, _one) = connect(settings).await?;
    let (other, _other) = connect(settings).await?;
    for _ in 0..POOLER_CHECKS {
        let first: i32 = ask(&one, PID).await.map_err(lock_error)?;
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

fn pooled() -> LockError {
    LockError::new(LockErrorKind::Unsupported).with_detail(
        "a connection pooler exchanges the session on the server between transactions: connect to \
         the server itself, or to a pool in session mode",
    )
}
