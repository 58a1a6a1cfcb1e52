//! The builder, and connecting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::provider::PostgresProvider;
use super::settings::{Options, OwnOptions, Settings};
use super::url;
use crate::LockError;
use crate::provider::LockProvider;
use crate::providers::kit::settings::{CommonOptions, common_setters};

/// Settings of a [`PostgresProvider`]; made by [`PostgresProvider::builder`].
///
/// What is set here wins over what the URL says.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use lock_runtime::PostgresProvider;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let provider = PostgresProvider::builder("postgres://app@127.0.0.1/app")
///     .key_prefix("MyApp1:")
///     .lease(Duration::from_secs(20))
///     .max_sessions(6)
///     .connect()
///     .await?;
/// lock_runtime::register(provider)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `connect` is called and awaited"]
pub struct PostgresProviderBuilder {
    url: String,
    common: CommonOptions,
    own: OwnOptions,
}

impl PostgresProvider {
    /// Connects to the server of this URL: `postgres://user:password@host:port/database`.
    ///
    /// The URL takes the parameters that PostgreSQL's own clients know, such as `sslmode`, `host`
    /// and `options`, and several hosts with commas between. The parameters `key_prefix`, `lease`,
    /// `connect_timeout`, `response_timeout`, `waiting_sessions`, `max_sessions`, `max_locks` and
    /// `snapshot_age` set what the builder's methods of that name set. `sslrootcert`, `sslcert` and
    /// `sslkey` name files in PEM format for its certificates.
    ///
    /// Of several hosts, the first one is taken that lets the session write, whatever
    /// `target_session_attrs` says. So a user whose `default_transaction_read_only` is on can only
    /// be used with a single host.
    ///
    /// # Errors
    ///
    /// The same as those of [`PostgresProviderBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any await.
    pub async fn connect(url: impl Into<String>) -> Result<Self, LockError> {
        Self::builder(url).connect().await
    }

    /// Starts with the settings of this URL, which [`connect`](Self::connect) explains.
    pub fn builder(url: impl Into<String>) -> PostgresProviderBuilder {
        PostgresProviderBuilder {
            url: url.into(),
            common: CommonOptions::default(),
            own: OwnOptions::default(),
        }
    }
}

impl PostgresProviderBuilder {
    common_setters! {
        /// Puts this before every name, as it stands: `MyApp1:` and `order` make the key
        /// `MyApp1:order`, of which the advisory lock is then made
        /// ([`advisory_key`](super::advisory_key)). By default nothing is put there. URL parameter
        /// `key_prefix`.
        key_prefix;

        /// Sets how long a lock outlives a holder that does not answer, where the caller names no
        /// lease: 100 ms to 24 h, by default 30 s. It is the `idle_session_timeout` of the session. The
        /// session of a live holder is never idle for longer than a third of it. URL parameter `lease`.
        lease;

        /// Sets how long opening a session may take, and for how long a waiter puts up with a server
        /// that is gone. By default it is a third of the lease, at least 1 s and at most 5 s. URL
        /// parameter `connect_timeout`, where a plain number counts seconds, as in other clients.
        connect_timeout;

        /// Sets how long the server may take to answer a request; by default 2 s, and in no case more
        /// than a quarter of the lease. After that the request's outcome counts as unknown, and what it
        /// may have taken is released. A renewal counts however late its answer comes. URL parameter
        /// `response_timeout`.
        response_timeout;
    }

    /// Sets how many sessions may stand in the server's queues at the same time, each for one lock.
    /// By default there are 16, as far as [`max_sessions`](Self::max_sessions) allows.
    ///
    /// Any other waiter is told by a notice when its lock is released, and then tries it. So does
    /// everybody else who waits for that lock, and the order among them is by chance. URL parameter
    /// `waiting_sessions`.
    pub fn waiting_sessions(mut self, sessions: usize) -> Self {
        self.own.waiting_sessions = Some(sessions);
        self
    }

    /// Sets how many sessions this provider opens at most, for everything; at least 2. By default
    /// it is a tenth of the server's `max_connections`, which is read when connecting. URL
    /// parameter `max_sessions`.
    ///
    /// Ten processes with the default may use up the server for everybody: give each
    /// `(max_connections - what applications need) / processes`.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.own.max_sessions = Some(sessions);
        self
    }

    /// Sets how many locks this provider holds or asks for at most. By default it is a quarter of
    /// the server's table of locks. URL parameter `max_locks`.
    ///
    /// That table has room for `max_locks_per_transaction × (max_connections +
    /// max_prepared_transactions)` locks of all clients and tables. When it is full, nobody can
    /// even connect. Four processes with the default may fill it.
    ///
    /// An acquisition beyond that fails with
    /// [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable).
    pub fn max_locks(mut self, locks: usize) -> Self {
        self.own.max_locks = Some(locks);
        self
    }

    /// Sets how old the snapshot may get of a session that waits in the server's queue; by default
    /// 10 s, at least 1 s. Then the session queues again, behind those that have come meanwhile. A
    /// snapshot keeps `VACUUM` from removing what has died since. URL parameter `snapshot_age`.
    pub fn snapshot_age(mut self, age: Duration) -> Self {
        self.own.snapshot_age = Some(age);
        self
    }

    common_setters! {
        /// Sets the user, in place of the URL's.
        username;

        /// Sets the password, in place of the URL's.
        password;

        /// Sets the authorities to trust with TLS, in PEM format, in place of the system's. URL
        /// parameter `sslrootcert`, the name of a file, or `system`.
        root_certificates;

        /// Sets the certificate and key, in PEM format, by which this client shows with TLS who it is.
        /// URL parameters `sslcert` and `sslkey`, names of files.
        client_certificate;
    }

    /// Connects, and looks whether the server can hold locks. Sessions belong to the library's own
    /// thread, and are opened anew when they break.
    ///
    /// # Errors
    ///
    /// * [`InvalidConfig`](crate::LockErrorKind::InvalidConfig): a setting or the URL is wrong, the
    ///   server refuses the user, the password or the database, or offers no TLS where it is
    ///   required;
    /// * [`Unsupported`](crate::LockErrorKind::Unsupported): the server is older than PostgreSQL
    ///   14, or a connection pooler stands before it that gives every transaction another session;
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable): the server cannot be
    ///   reached, does not answer in time, takes no more connections, or is a standby.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any await.
    pub async fn connect(self) -> Result<PostgresProvider, LockError> {
        PostgresProvider::open(self.settings()?).await
    }

    fn settings(self) -> Result<Settings, LockError> {
        let options = Options {
            common: self.common,
            own: self.own,
        };
        url::read(&self.url, options)
    }
}

impl fmt::Debug for PostgresProviderBuilder {
    /// Shows no URL and no certificate: a URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let common = &self.common;
        common
            .debug(f, "PostgresProviderBuilder")
            .field("response_timeout", &common.response_timeout)
            .field("waiting_sessions", &self.own.waiting_sessions)
            .field("max_sessions", &self.own.max_sessions)
            .field("max_locks", &self.own.max_locks)
            .field("snapshot_age", &self.own.snapshot_age)
            .field("username", &common.username)
            .finish_non_exhaustive()
    }
}

/// Connects to the server of a URL.
pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    Ok(Arc::new(PostgresProvider::connect(url).await?))
}
