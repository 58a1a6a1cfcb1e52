//! Setting a session up: what the server must be, and what the session must be set to.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::{Connected, ask, ask_row, connect, probes, within_limit};
use super::error::lock_error;
use super::key::Keys;
use super::notices::Waiters;
use super::pooler::{mark, pooled};
use super::settings::Settings;
use super::sql::{MARK, STARTED, milliseconds};
use crate::clock::Timestamp;
use crate::providers::kit::session::Liveness;
use crate::providers::sql_session::{Backend, Capacity, Server, SessionPermit, SessionUse};
use crate::{LockError, LockErrorKind};

/// The first version that tells when it last forgot transaction numbers. Those before keep
/// statistics in a file, which is slow to read, and not reset at once by a crash.
const FIRST_WITH_TOKENS: u32 = 15;
/// How often the server looks whether a client that waits for a lock is still connected.
const LOOKS_FOR_CLIENT_EVERY: &str = "2s";
/// The part of a token that says how often the database has been taken over by a standby stands
/// above this many bits, which are microseconds enough until 2095.
const TIMELINE_SHIFT: u32 = 51;
/// 2024-01-01, from where a server's start is counted.
const EPOCH_MICROS: i64 = 1_704_067_200_000_000;
/// The timeline; null on a standby.
const TIMELINE: &str = "CASE WHEN NOT pg_is_in_recovery() THEN ('x' || \
                        substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))\
                        ::bit(32)::int4 END";
const POSTMASTER_STARTED: &str = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";

/// A session that is ready for use.
pub(super) struct Ready {
    pub(super) client: Client,
    pub(super) liveness: Arc<Liveness<Keys>>,
    pub(super) notices: Arc<Waiters>,
    pub(super) backend: Backend<i32>,
    /// What the session is marked with on the server.
    pub(super) mark: String,
    /// What is added to the number that the server answers to make a token.
    pub(super) token_base: i64,
    pub(super) gives_tokens: bool,
    /// When the connection was begun.
    pub(super) connected_at: Timestamp,
    /// When the session was last asked something that it has answered.
    pub(super) sent_at: Timestamp,
    pub(super) capacity: Capacity,
}

/// Opens a session whose server ends it when it has been idle for a lease.
pub(super) async fn open(
    settings: &Settings,
    lease: Duration,
    usage: SessionUse,
    permit: SessionPermit,
) -> Result<Ready, LockError> {
    within_limit(settings, connect_and_set_up(settings, lease, usage, permit)).await
}

async fn connect_and_set_up(
    settings: &Settings,
    lease: Duration,
    usage: SessionUse,
    permit: SessionPermit,
) -> Result<Ready, LockError> {
    let connected_at = Timestamp::now();
    let Connected {
        client,
        liveness,
        notices,
        version,
    } = connect(settings, lease, Some(permit)).await?;
    let mark = mark(&client).await?;
    // A wait has a snapshot of the database, which keeps the server from removing what has died
    // since.
    let longest_wait = match usage {
        SessionUse::Shared => Duration::ZERO,
        SessionUse::OneLock => settings.target.snapshot_age,
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
    Ok(Ready {
        client,
        liveness,
        notices,
        backend,
        mark,
        token_base,
        gives_tokens: version >= FIRST_WITH_TOKENS,
        connected_at,
        sent_at,
        capacity,
    })
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

/// Returns the number of the database cluster, or zero where not everybody may ask for it.
async fn system(client: &Client) -> Result<i64, LockError> {
    let asked = ask(client, "SELECT system_identifier FROM pg_control_system()").await;
    match asked {
        Ok(number) => Ok(number),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(0),
        Err(error) => Err(lock_error(error)),
    }
}

/// Returns what makes the numbers of transactions grow over what is forgotten when a standby takes
/// over, which starts a new timeline.
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

/// Sets the lease, and nothing else that could end the session, hold up a statement, hide the
/// session from itself, or give our functions' names another meaning.
async fn set_up(
    client: &Client,
    lease: Duration,
    longest_wait: Duration,
) -> Result<(), tokio_postgres::Error> {
    // This counts whatever a role's settings say. Until it is done, nothing may be named that the
    // role's path, or the role that it is switched to, can give another meaning.
    client
        .batch_execute("SET search_path = pg_catalog, pg_temp; SET ROLE NONE")
        .await?;
    let (idle, longest_wait) = (milliseconds(lease), milliseconds(longest_wait));
    let probes = probes(lease);
    client
        .batch_execute(&format!(
            "SET idle_session_timeout = {idle};
             SELECT set_config(name, wanted, false) FROM pg_settings JOIN (VALUES
                 ('statement_timeout', '0'), ('lock_timeout', '{longest_wait}'),
                 ('transaction_timeout', '0'),
                 ('idle_in_transaction_session_timeout', '0'),
                 ('default_transaction_isolation', 'read committed'),
                 ('default_transaction_deferrable', 'off'), ('stats_fetch_consistency', 'cache'),
                 ('tcp_keepalives_idle', '{probes}'), ('tcp_keepalives_interval', '{probes}'),
                 ('tcp_keepalives_count', '3')
             ) AS settings (name, wanted) USING (name);"
        ))
        .await?;
    // Not every system that a server runs on can do this. It only makes the server sooner forget a
    // client that died waiting.
    let looking = format!("SET client_connection_check_interval = '{LOOKS_FOR_CLIENT_EVERY}'");
    if let Err(error) = client.batch_execute(&looking).await
        && error.code().is_none()
    {
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
