//! Opening a session: what the server must be, and what the session must be set to.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSqlOwned, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Row, Socket};

use super::bounds::{Capacity, Place};
use super::config::Settings;
use super::error::{connect_error, lock_error, text, unanswered};
use super::life::Life;
use super::server::{Backend, Server};
use super::session::milliseconds;
use super::statements::{MARK, STARTED};
use super::tls::Encrypted;
use crate::clock::Timestamp;
use crate::providers::pause::jittered;
use crate::race::{First, first_of};
use crate::{LockError, LockErrorKind};

/// The first that ends a session that is idle for too long.
const OLDEST: u32 = 14;
/// The first that tells when it last forgot transaction numbers. Those before keep statistics in a
/// file, which is slow to read, and not reset at once by a crash.
const FIRST_WITH_TOKENS: u32 = 15;
/// How often the server looks whether a client that waits for a lock is still connected.
const LOOKS_FOR_CLIENT_EVERY: &str = "2s";
/// The part of a token that says how often the database has been taken over by a standby stands
/// above this many bits, which are microseconds enough until 2095.
const TIMELINE_SHIFT: u32 = 51;
/// 2024-01-01, from where a server's start is counted.
const EPOCH_MICROS: i64 = 1_704_067_200_000_000;
/// Attempts to catch a pooler that exchanges sessions.
const POOLER_CHECKS: usize = 3;

/// What may be wrong, besides, when a session is not to be had.
const POOLS: &str = "a session was not to be had (the pool of a pooler in between needs room for \
                     two sessions while a process connects, and for `max_sessions` then)";

/// Between two attempts to connect to a server that is starting.
const WHILE_STARTING: Duration = Duration::from_millis(100);

/// Null on a standby.
const TIMELINE: &str = "CASE WHEN NOT pg_is_in_recovery() THEN ('x' || \
                        substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))\
                        ::bit(32)::int4 END";
const POSTMASTER_STARTED: &str = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";

/// What was opened.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) backend: Backend,
    pub(super) token_base: i64,
    pub(super) gives_tokens: bool,
    pub(super) lease: Duration,
    pub(super) life: Arc<Life>,
    pub(super) sent_at: Timestamp,
    /// When the connection was begun.
    pub(super) connected_at: Timestamp,
    pub(super) mark: String,
    pub(super) capacity: Capacity,
}

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Shared,
    /// To wait for one lock, and to hold it.
    OneLock,
}

/// Opens a session whose server ends it when it has been idle for a lease.
pub(super) async fn open(
    settings: &Settings,
    lease: Duration,
    usage: Use,
    place: Place,
) -> Result<Opened, LockError> {
    within_limit(settings, connect_and_set_up(settings, lease, usage, place)).await
}

/// Refuses a connection pooler that gives every transaction or statement another session.
pub(super) async fn refuse_pooler(settings: &Settings) -> Result<(), LockError> {
    within_limit(settings, look_for_pooler(settings)).await
}

async fn within_limit<T>(
    settings: &Settings,
    opening: impl Future<Output = Result<T, LockError>>,
) -> Result<T, LockError> {
    let limit = settings.connect_timeout;
    let outcome = match tokio::time::timeout(limit, opening).await {
        Ok(outcome) => outcome,
        Err(_) => Err(unanswered(limit).about(POOLS)),
    };
    outcome.map_err(|error| error.about(format_args!("server `{}`", settings.server_name)))
}

async fn connect_and_set_up(
    settings: &Settings,
    lease: Duration,
    usage: Use,
    place: Place,
) -> Result<Opened, LockError> {
    let connected_at = Timestamp::now();
    let Connected {
        client,
        life,
        version,
    } = connect(settings, lease, Some(place)).await?;
    let mark = mark(&client).await?;
    // A wait has a snapshot of the database, which keeps what has died since.
    let longest_wait = match usage {
        Use::Shared => Duration::ZERO,
        Use::OneLock => settings.snapshot_age,
    };
    set_up(&client, lease, longest_wait)
        .await
        .map_err(lock_error)?;
    let sent_at = Timestamp::now();
    let sql = format!(
        "SELECT pg_backend_pid(), {STARTED}, {TIMELINE}, \
         current_setting('max_connections')::int8, \
         current_setting('max_locks_per_transaction')::int8 * \
         (current_setting('max_connections')::int8 + \
         current_setting('max_prepared_transactions')::int8), \
         {POSTMASTER_STARTED}, {MARK} FROM pg_stat_get_activity(pg_backend_pid())"
    );
    let row = ask_row(&client, &sql).await.map_err(lock_error)?;
    if row.try_get::<_, Option<&str>>(6).map_err(lock_error)? != Some(&*mark) {
        return Err(pooled());
    }
    let timeline: Option<i32> = row.try_get(2).map_err(lock_error)?;
    let token_base = token_base(timeline)?;
    let backend = Backend {
        server: Server {
            system: system(&client).await?,
            timeline: timeline.unwrap_or_default(),
            started: row.try_get(5).map_err(lock_error)?,
        },
        pid: row.try_get(0).map_err(lock_error)?,
        started: row.try_get(1).map_err(lock_error)?,
    };
    let number = |column| {
        let number: i64 = row.try_get(column).map_err(lock_error)?;
        Ok::<_, LockError>(usize::try_from(number).unwrap_or_default())
    };
    let capacity = Capacity {
        connections: number(3)?,
        locks: number(4)?,
    };
    Ok(Opened {
        client,
        backend,
        token_base,
        gives_tokens: version >= FIRST_WITH_TOKENS,
        lease,
        life,
        sent_at,
        connected_at,
        mark,
        capacity,
    })
}

/// Marks a session. One that is marked is another client's: somebody between shares sessions out.
async fn mark(client: &Client) -> Result<String, LockError> {
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
        // One that was set and reset is empty.
        None | Some("") => Ok(mark),
        Some(_) => Err(pooled()),
    }
}

/// Looks which server the name leads to now.
///
/// # Errors
///
/// Also if it is a standby, which shows nothing: it may be on its way to become the primary.
pub(super) async fn look(settings: &Settings) -> Result<Server, LockError> {
    within_limit(settings, async {
        let client = connect(settings, settings.lease, None).await?.client;
        let sql = format!("SELECT {TIMELINE}, {POSTMASTER_STARTED}");
        // The role's search path applies here, and could give functions another meaning.
        client
            .batch_execute("SET search_path = pg_catalog, pg_temp")
            .await
            .map_err(lock_error)?;
        let row = ask_row(&client, &sql).await.map_err(lock_error)?;
        let timeline: Option<i32> = row.try_get(0).map_err(lock_error)?;
        token_base(timeline)?;
        Ok(Server {
            system: system(&client).await?,
            timeline: timeline.unwrap_or_default(),
            started: row.try_get(1).map_err(lock_error)?,
        })
    })
    .await
}

/// The number of the database cluster, where everybody may ask for it.
async fn system(client: &Client) -> Result<i64, LockError> {
    let asked = ask(client, "SELECT system_identifier FROM pg_control_system()").await;
    match asked {
        Ok(number) => Ok(number),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(0),
        Err(error) => Err(lock_error(error)),
    }
}

struct Connected {
    client: Client,
    life: Arc<Life>,
    version: u32,
}

async fn connect(
    settings: &Settings,
    lease: Duration,
    place: Option<Place>,
) -> Result<Connected, LockError> {
    let until = Timestamp::now() + settings.connect_timeout * 3 / 4;
    let (client, connection) = loop {
        match start(settings, lease).await {
            // A server that is starting is there in a moment.
            Err(error)
                if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) && !until.has_passed() =>
            {
                tokio::time::sleep(jittered(WHILE_STARTING)).await;
            }
            started => break started.map_err(connect_error)?,
        }
    };
    let version = check_version(connection.parameter("server_version"))?;
    let life = Life::new();
    let driving = drive(connection, Arc::clone(&life));
    tokio::spawn(async move {
        driving.await;
        drop(place);
    });
    Ok(Connected {
        client,
        life,
        version,
    })
}

/// Connects with settings that hold from the first moment on: the server would keep a session for
/// hours whose client dies while it is being set up. A pooler may take no such settings.
async fn start(
    settings: &Settings,
    lease: Duration,
) -> Result<(Client, Connection<Socket, Encrypted>), tokio_postgres::Error> {
    if !settings.starts_plainly.load(Ordering::Relaxed) {
        let mut server = settings.server.clone();
        let options = server.get_options().unwrap_or_default().to_owned();
        let (idle, probes) = (milliseconds(lease), probes(lease));
        server.options(format!(
            "{options} -c idle_session_timeout={idle} -c tcp_keepalives_idle={probes} \
             -c tcp_keepalives_interval={probes} -c tcp_keepalives_count=3"
        ));
        match server.connect(settings.tls.clone()).await {
            Err(error) if error.code() == Some(&SqlState::PROTOCOL_VIOLATION) => {
                settings.starts_plainly.store(true, Ordering::Relaxed);
            }
            connected => return connected,
        }
    }
    settings.server.connect(settings.tls.clone()).await
}

/// How many seconds a connection is quiet before the server probes it, and probes are apart.
fn probes(lease: Duration) -> u64 {
    (lease.as_secs() / 8).clamp(1, 10)
}

/// Moves the bytes of a session, until it ends or is given up.
async fn drive(connection: Connection<Socket, Encrypted>, life: Arc<Life>) {
    match first_of(move_bytes(connection, &life), life.ended()).await {
        // Somebody between may have closed it, and the server not know.
        First::Left(Ok(())) => life.end("the session was closed"),
        First::Left(Err(error)) => {
            let why = format!("the server ended the session ({})", text(&error));
            match error.code() {
                Some(_) => life.end_by_server(&why),
                None => life.end(&why),
            }
        }
        First::Right(_) => {}
    }
}

async fn move_bytes(
    mut connection: Connection<Socket, Encrypted>,
    life: &Life,
) -> Result<(), tokio_postgres::Error> {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(notice) = message? {
            life.heard(notice.channel());
        }
    }
    Ok(())
}

/// Unnamed statements, which poolers can take too.
async fn ask_row(client: &Client, sql: &str) -> Result<Row, tokio_postgres::Error> {
    let no_parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 0] = [];
    client.query_typed_one(sql, &no_parameters).await
}

async fn ask<T: FromSqlOwned>(client: &Client, sql: &str) -> Result<T, tokio_postgres::Error> {
    ask_row(client, sql).await?.try_get(0)
}

/// The first number of a version such as `15.10 (Debian 15.10-0+deb12u1)` or `19devel`.
fn check_version(version: Option<&str>) -> Result<u32, LockError> {
    let version = version.unwrap_or("nothing");
    let end = version
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(version.len());
    match version[..end].parse() {
        Ok(number @ OLDEST..) => Ok(number),
        _ => Err(
            LockError::new(LockErrorKind::Unsupported).with_detail(format!(
                "the server is too old: expected PostgreSQL {OLDEST} or newer, got {version}"
            )),
        ),
    }
}

/// What makes the numbers of transactions grow over what is forgotten when a standby takes over,
/// which starts a new timeline.
fn token_base(timeline: Option<i32>) -> Result<i64, LockError> {
    let Some(timeline) = timeline else {
        return Err(LockError::new(LockErrorKind::ProviderUnavailable)
            .with_detail("the server is a standby: expected the primary"));
    };
    let timeline = i64::from(timeline);
    if timeline >= 1 << (63 - TIMELINE_SHIFT) {
        return Err(LockError::new(LockErrorKind::Unsupported)
            .with_detail("the server has been taken over too often for fencing tokens"));
    }
    Ok((timeline << TIMELINE_SHIFT) - EPOCH_MICROS)
}

/// The lease, and nothing else that could end the session, hold up a statement, hide the session
/// from itself, or give our functions' names another meaning.
async fn set_up(
    client: &Client,
    lease: Duration,
    longest_wait: Duration,
) -> Result<(), tokio_postgres::Error> {
    // Whatever a role's settings say. Until this is done, nothing may be named that the role's path
    // or the role that it is switched to can give another meaning.
    client
        .batch_execute("SET search_path = pg_catalog, pg_temp; SET ROLE NONE")
        .await?;
    let (idle, longest_wait) = (milliseconds(lease), milliseconds(longest_wait));
    let probes = probes(lease);
    client
        .batch_execute(&format!(
            "SET idle_session_timeout = {idle};
             SELECT set_config(name, wanted, false) FROM pg_settings JOIN (VALUES
                 ('statement_timeout', '0'), ('lock_timeout', '{longest_wait}'), ('transaction_timeout', '0'),
                 ('idle_in_transaction_session_timeout', '0'),
                 ('default_transaction_isolation', 'read committed'),
                 ('default_transaction_deferrable', 'off'), ('stats_fetch_consistency', 'cache'),
                 ('tcp_keepalives_idle', '{probes}'), ('tcp_keepalives_interval', '{probes}'),
                 ('tcp_keepalives_count', '3')
             ) AS settings (name, wanted) USING (name);"
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
    // The role's search path applies here.
    const PID: &str = "SELECT pg_catalog.pg_backend_pid()";
    let one = connect(settings, settings.lease, None).await?.client;
    let other = connect(settings, settings.lease, None).await?.client;
    for _ in 0..POOLER_CHECKS {
        let first: i32 = ask(&one, PID).await.map_err(lock_error)?;
        // One that serves its sessions in turn changes it here, one that prefers the last further on.
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

fn pooled() -> LockError {
    LockError::new(LockErrorKind::Unsupported).with_detail(
        "a connection pooler exchanges the session on the server between transactions: connect to \
         the server itself, or to a pool in session mode",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_14_are_too_old() {
        for version in ["14.0", "15.10 (Debian 15.10-0+deb12u1)", "19devel", "14"] {
            assert!(check_version(Some(version)).is_ok(), "{version}");
        }
        for version in [Some("13.99"), Some("9.6.24"), Some("unknown"), None] {
            let error = check_version(version).unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Unsupported, "{error}");
        }
    }

    #[test]
    fn a_later_timeline_outweighs_every_start() {
        let number_of = |timeline, micros_since_1970: i64| {
            token_base(Some(timeline)).unwrap() + micros_since_1970
        };
        let (in_2026, in_2090) = (1_767_225_600_000_000, 3_786_912_000_000_000);
        assert!(number_of(1, in_2090) < number_of(2, in_2026));
        assert!(number_of(1, in_2026) < number_of(1, in_2026 + 1));
        assert!(token_base(Some(4095)).is_ok() && token_base(Some(4096)).is_err());
        assert!(token_base(None).is_err());
    }
}
