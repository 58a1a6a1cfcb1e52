//! Connecting, and the task that drives a connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSqlOwned, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Row, Socket};

use super::error::{connect_error, text};
use super::key::Keys;
use super::notices::Waiters;
use super::settings::Settings;
use super::sql::milliseconds;
use super::tls::Encrypted;
use crate::background;
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::providers::kit::backoff::jittered;
use crate::providers::kit::fault::unanswered;
use crate::providers::kit::session::Liveness;
use crate::providers::sql_session::SessionPermit;
use crate::{LockError, LockErrorKind};

/// The first version that ends a session that is idle for too long.
const OLDEST: u32 = 14;
/// Between two attempts to connect to a server that is starting.
const WHILE_STARTING: Duration = Duration::from_millis(100);
/// What may be wrong, besides, when a session is not to be had.
const POOLS: &str = "a session was not to be had (the pool of a pooler in between needs room for \
                     two sessions while a process connects, and for `max_sessions` then)";

/// Waits for a connection for as long as it may take, and names the server if it fails.
pub(super) async fn within_limit<T>(
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

/// A connection that is driven by a task of its own.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) liveness: Arc<Liveness<Keys>>,
    pub(super) notices: Arc<Waiters>,
    /// The first number of the server's version.
    pub(super) version: u32,
}

/// Connects. The permit is kept for as long as the connection is there.
pub(super) async fn connect(
    settings: &Settings,
    lease: Duration,
    permit: Option<SessionPermit>,
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
    let (liveness, notices) = (Arc::new(Liveness::new()), Arc::<Waiters>::default());
    let driving = drive(connection, Arc::clone(&liveness), Arc::clone(&notices));
    background::spawn_beside(async move {
        driving.await;
        drop(permit);
    });
    Ok(Connected {
        client,
        liveness,
        notices,
        version,
    })
}

/// Connects with settings that hold from the first moment on: the server would keep a session for
/// hours whose client dies while it is being set up. A pooler may take no such settings.
async fn start(
    settings: &Settings,
    lease: Duration,
) -> Result<(Client, Connection<Socket, Encrypted>), tokio_postgres::Error> {
    let target = &settings.target;
    if !target.starts_plainly.load(Ordering::Relaxed) {
        let mut server = target.config.clone();
        let options = server.get_options().unwrap_or_default().to_owned();
        let (idle, probes) = (milliseconds(lease), probes(lease));
        server.options(format!(
            "{options} -c idle_session_timeout={idle} -c tcp_keepalives_idle={probes} \
             -c tcp_keepalives_interval={probes} -c tcp_keepalives_count=3"
        ));
        match server.connect(target.tls.clone()).await {
            Err(error) if error.code() == Some(&SqlState::PROTOCOL_VIOLATION) => {
                target.starts_plainly.store(true, Ordering::Relaxed);
            }
            connected => return connected,
        }
    }
    target.config.connect(target.tls.clone()).await
}

/// Returns for how many seconds a connection is quiet before the server probes it, which is also
/// the time between two probes.
pub(super) fn probes(lease: Duration) -> u64 {
    (lease.as_secs() / 8).clamp(1, 10)
}

/// Moves the bytes of a session, until it ends or is given up.
async fn drive(
    connection: Connection<Socket, Encrypted>,
    liveness: Arc<Liveness<Keys>>,
    notices: Arc<Waiters>,
) {
    match select(move_bytes(connection, &notices), liveness.ended()).await {
        // Somebody between may have closed it, and the server not know.
        First::Left(Ok(())) => liveness.end("the session was closed"),
        First::Left(Err(error)) => {
            let why = format!("the server ended the session ({})", text(&error));
            match error.code() {
                Some(_) => liveness.end_by_server(&why),
                None => liveness.end(&why),
            }
        }
        First::Right(_) => {}
    }
}

async fn move_bytes(
    mut connection: Connection<Socket, Encrypted>,
    notices: &Waiters,
) -> Result<(), tokio_postgres::Error> {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(notice) = message? {
            notices.arrived(notice.channel(), notice.payload());
        }
    }
    Ok(())
}

/// Asks by an unnamed statement, which poolers can take too.
pub(super) async fn ask_row(client: &Client, sql: &str) -> Result<Row, tokio_postgres::Error> {
    let no_parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 0] = [];
    client.query_typed_one(sql, &no_parameters).await
}

/// Asks for a single value, by an unnamed statement.
pub(super) async fn ask<T: FromSqlOwned>(
    client: &Client,
    sql: &str,
) -> Result<T, tokio_postgres::Error> {
    ask_row(client, sql).await?.try_get(0)
}

/// Returns the first number of a version such as `15.10 (Debian 15.10-0+deb12u1)` or `19devel`.
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
}
