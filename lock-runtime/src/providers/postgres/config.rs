//! How to connect: the builder, and the parameters of a URL.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::PostgresProvider;
use super::error::text;
use super::tls::{Identity, Tls};
use crate::LockError;
use crate::providers::limits::DeadPeers;
use crate::providers::url::{parameters, set_duration, split, without_secrets};
use crate::providers::{invalid, limits};

/// A process that lives says so within this time, however busy its machine.
const SHORTEST_CLAIM: Duration = Duration::from_secs(2);
const LONGEST_DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_WAITING_SESSIONS: usize = 16;
const DEFAULT_SNAPSHOT_AGE: Duration = Duration::from_secs(10);
const SHORTEST_SNAPSHOT_AGE: Duration = Duration::from_secs(1);
const LONGEST_SNAPSHOT_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Settings of a [`PostgresProvider`]; made by [`PostgresProvider::builder`].
///
/// What is set here wins over what the URL says.
#[must_use = "a builder does nothing until `connect` is called and awaited"]
pub struct PostgresProviderBuilder {
    url: String,
    key_prefix: Option<String>,
    lease: Option<Duration>,
    connect_timeout: Option<Duration>,
    response_timeout: Option<Duration>,
    waiting_sessions: Option<usize>,
    max_sessions: Option<usize>,
    max_locks: Option<usize>,
    snapshot_age: Option<Duration>,
    username: Option<String>,
    password: Option<String>,
    root_certificates: Option<Vec<u8>>,
    client_certificate: Option<Identity>,
}

const EXPECTED: &str = "expected a URL like postgres://user:password@host:5432/database";

/// What the rest of the provider goes by; all checked.
pub(super) struct Settings {
    pub(super) server: tokio_postgres::Config,
    pub(super) tls: Tls,
    pub(super) key_prefix: String,
    pub(super) lease: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
    pub(super) waiting_sessions: usize,
    /// Where they were chosen; else they are parts of what the server has.
    pub(super) max_sessions: Option<usize>,
    pub(super) max_locks: Option<usize>,
    pub(super) snapshot_age: Duration,
    /// Somebody between takes no settings when a connection starts.
    pub(super) starts_plainly: AtomicBool,
    /// The hosts, as errors name them.
    pub(super) server_name: String,
}

/// The parameters of a URL that the client reads.
const OF_THE_CLIENT: [&str; 17] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

impl Settings {
    /// How long a request may take that must not take longer than a part of a lease.
    pub(super) fn patience(&self, lease: Duration) -> Duration {
        self.response_timeout.min(lease / 4)
    }

    /// How long the server keeps a session that has just been granted what it waited for, until it
    /// shows that it lives.
    pub(super) fn claim_within(&self, lease: Duration) -> Duration {
        lease.min(self.response_timeout.max(SHORTEST_CLAIM))
    }
}

impl PostgresProviderBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            key_prefix: None,
            lease: None,
            connect_timeout: None,
            response_timeout: None,
            waiting_sessions: None,
            max_sessions: None,
            max_locks: None,
            snapshot_age: None,
            username: None,
            password: None,
            root_certificates: None,
            client_certificate: None,
        }
    }

    /// Puts this before every name, as it stands: `MyApp1:` and `order` make the key
    /// `MyApp1:order`, of which the advisory lock is then made
    /// ([`advisory_key`](super::advisory_key)). By default nothing. URL parameter `key_prefix`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = Some(prefix.into());
        self
    }

    /// How long a lock outlives a holder that does not answer, where the caller names no lease:
    /// 100 ms to 24 h, by default 30 s. It is the `idle_session_timeout` of the session; a live
    /// holder's session is never idle for longer than a third of it. URL parameter `lease`.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// How long opening a session may take, and for how long a waiter puts up with a server that
    /// is gone; by default a third of the lease, at least 1 s and at most 5 s. URL parameter
    /// `connect_timeout`, where a plain number counts seconds, as in other clients.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// How long the server may take to answer a request, after which its outcome counts as
    /// unknown and is undone; by default 2 s. In no case more than a quarter of the lease. A renewal
    /// counts however late its answer comes. URL parameter `response_timeout`.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = Some(timeout);
        self
    }

    /// How many sessions may stand in the server's queues at the same time, each for one lock. By
    /// default 16, as far as [`max_sessions`](Self::max_sessions) allows. Who waits for a lock beyond
    /// that is told by a notice when it is released, and then tries; so does everybody else who
    /// waits for that lock, and the order among them is by chance. URL parameter
    /// `waiting_sessions`.
    pub fn waiting_sessions(mut self, sessions: usize) -> Self {
        self.waiting_sessions = Some(sessions);
        self
    }

    /// How many sessions this provider opens at most, for everything; at least 2. By default a tenth
    /// of the server's `max_connections`, which is read when connecting. Ten processes with the
    /// default may use up the server for everybody: give each
    /// `(max_connections - what applications need) / processes`. URL parameter `max_sessions`.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = Some(sessions);
        self
    }

    /// How many locks this provider holds or asks for at most. By default a quarter of the server's
    /// table of locks, which has room for `max_locks_per_transaction × (max_connections +
    /// max_prepared_transactions)` locks of all clients and tables: when it is full, nobody can
    /// even connect. Four processes with the default may fill it. URL parameter `max_locks`.
    ///
    /// An acquisition beyond that fails with
    /// [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable).
    pub fn max_locks(mut self, locks: usize) -> Self {
        self.max_locks = Some(locks);
        self
    }

    /// How old the snapshot of a session may get that waits in the server's queue; by default 10 s,
    /// at least 1 s. Then it queues again, behind who came meanwhile. A snapshot keeps `VACUUM` from
    /// removing what has died since. URL parameter `snapshot_age`.
    pub fn snapshot_age(mut self, age: Duration) -> Self {
        self.snapshot_age = Some(age);
        self
    }

    /// The user, in place of the URL's.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password, in place of the URL's.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The authorities to trust with TLS, in PEM format, in place of the system's. URL parameter
    /// `sslrootcert`, the name of a file, or `system`.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// The certificate and key, in PEM format, by which this client shows with TLS who it is. URL
    /// parameters `sslcert` and `sslkey`, names of files.
    pub fn client_certificate(
        mut self,
        certificate_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.client_certificate = Some(Identity {
            certificate: certificate_pem.into(),
            key: key_pem.into(),
        });
        self
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
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable): it cannot be reached,
    ///   does not answer in time, takes no more connections, or is a standby.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(self) -> Result<PostgresProvider, LockError> {
        PostgresProvider::open(self.settings()?).await
    }

    pub(super) fn settings(mut self) -> Result<Settings, LockError> {
        let (address, parameters) = split(&self.url)?;
        let address = with_scheme(&address)?;
        let read = self
            .read_parameters(&parameters)
            .and_then(|(rest, ssl_mode)| {
                let server: tokio_postgres::Config =
                    format!("{address}?{rest}").parse().map_err(|error| {
                        // The client's error names the mistake and never the URL.
                        invalid(format!("{EXPECTED}: {}", text(&error)))
                    })?;
                Ok((server, ssl_mode))
            });
        let (mut server, ssl_mode) = without_secrets(&parameters, read)?;
        // It would be shown with the host's name.
        let is_cut_off = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if server.get_hosts().iter().any(is_cut_off) {
            return Err(invalid(
                "expected one `@` in the URL: in a user name or password it is written as `%40`",
            ));
        }
        let lease = limits::lease(self.lease)?;
        let response_timeout = self
            .response_timeout
            .unwrap_or(LONGEST_DEFAULT_RESPONSE_TIMEOUT);
        let connect_timeout = self
            .connect_timeout
            .unwrap_or_else(|| limits::default_connect_timeout(lease));
        if response_timeout.is_zero() || connect_timeout.is_zero() {
            return Err(invalid("expected timeouts above zero"));
        }
        if let Some(sessions) = self.max_sessions.filter(|sessions| *sessions < 2) {
            return Err(invalid(format!(
                "expected `max_sessions` of at least 2, got {sessions}"
            )));
        }
        if self.max_locks == Some(0) {
            return Err(invalid("expected `max_locks` of at least 1"));
        }
        let snapshot_age = self.snapshot_age.unwrap_or(DEFAULT_SNAPSHOT_AGE);
        if !(SHORTEST_SNAPSHOT_AGE..=LONGEST_SNAPSHOT_AGE).contains(&snapshot_age) {
            return Err(invalid(format!(
                "expected `snapshot_age` of 1 s to 24 h, got {snapshot_age:?}"
            )));
        }
        if let Some(username) = &self.username {
            server.user(username);
        }
        if let Some(password) = &self.password {
            server.password(password);
        }
        if server.get_application_name().is_none() {
            server.application_name("lock-runtime");
        }
        if server.get_hosts().len() > 1 {
            server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        server.ssl_mode(ssl_mode.unwrap_or_else(|| default_ssl_mode(&server)));
        notice_dead_peers(&mut server, lease);
        // One host that is gone without a word must not use up the time of the others.
        let hosts = server.get_hosts().len().max(1);
        server.connect_timeout(connect_timeout / u32::try_from(hosts).unwrap_or(u32::MAX));
        if server.get_ssl_mode() == SslMode::Disable
            && (self.root_certificates.is_some() || self.client_certificate.is_some())
        {
            return Err(invalid("certificates need TLS: expected `sslmode=require`"));
        }
        let tls = Tls::new(
            self.root_certificates.as_deref(),
            self.client_certificate.as_ref(),
        )?;
        Ok(Settings {
            server_name: server_name(&server),
            server,
            tls,
            key_prefix: self.key_prefix.unwrap_or_default(),
            lease,
            connect_timeout,
            response_timeout,
            waiting_sessions: self
                .waiting_sessions
                .unwrap_or(DEFAULT_WAITING_SESSIONS)
                .min(Semaphore::MAX_PERMITS),
            max_sessions: self.max_sessions,
            max_locks: self.max_locks,
            snapshot_age,
            starts_plainly: AtomicBool::new(false),
        })
    }

    /// Takes what is ours, and leaves the client what it knows.
    fn read_parameters(&mut self, query: &str) -> Result<(String, Option<SslMode>), LockError> {
        let mut rest = form_urlencoded::Serializer::new(String::new());
        let mut ssl_mode = None;
        let (mut certificate, mut certificate_key) = (None, None);
        for (key, value) in parameters(query)? {
            match &*key {
                "key_prefix" => {
                    self.key_prefix.get_or_insert_with(|| value.into_owned());
                }
                "lease" => set_duration(&mut self.lease, &key, &value)?,
                "connect_timeout" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    set_duration(&mut self.connect_timeout, &key, &format!("{value}s"))?;
                }
                "connect_timeout" => set_duration(&mut self.connect_timeout, &key, &value)?,
                "response_timeout" => set_duration(&mut self.response_timeout, &key, &value)?,
                "waiting_sessions" => set_number(&mut self.waiting_sessions, &key, &value)?,
                "max_sessions" => set_number(&mut self.max_sessions, &key, &value)?,
                "max_locks" => set_number(&mut self.max_locks, &key, &value)?,
                "snapshot_age" => set_duration(&mut self.snapshot_age, &key, &value)?,
                "sslmode" => ssl_mode = Some(read_ssl_mode(&value)?),
                // In other clients too, the system's are named so.
                "sslrootcert" if value == "system" => {}
                "sslrootcert" if self.root_certificates.is_some() => {}
                "sslrootcert" => self.root_certificates = Some(read_file(&key, &value)?),
                "sslcert" => certificate = Some(value.into_owned()),
                "sslkey" => certificate_key = Some(value.into_owned()),
                known if OF_THE_CLIENT.contains(&known) => {
                    rest.append_pair(&key, &value);
                }
                unknown => {
                    return Err(invalid(format!(
                        "unknown URL parameter `{unknown}`; expected `key_prefix`, `lease`, \
                         `connect_timeout`, `response_timeout`, `waiting_sessions`, \
                         `max_sessions`, `max_locks`, `snapshot_age`, `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `{}`",
                        OF_THE_CLIENT.join("`, `")
                    )));
                }
            }
        }
        match (certificate, certificate_key) {
            _ if self.client_certificate.is_some() => {}
            (Some(certificate), Some(key)) => {
                self.client_certificate = Some(Identity {
                    certificate: read_file("sslcert", &certificate)?,
                    key: read_file("sslkey", &key)?,
                });
            }
            (None, None) => {}
            _ => {
                return Err(invalid(
                    "expected `sslcert` and `sslkey`, got only one of them",
                ));
            }
        }
        // The client reads `+` as it stands.
        Ok((rest.finish().replace('+', "%20"), ssl_mode))
    }
}

/// The address as the client takes it for a URL. Anything else it would take for a list of `key=value`,
/// and repeat what it does not know, which may hold a password.
fn with_scheme(address: &str) -> Result<String, LockError> {
    let scheme_and_rest = address.split_once("://");
    match scheme_and_rest.map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest)) {
        Some((scheme, rest)) if scheme == "postgres" || scheme == "postgresql" => {
            Ok(format!("{scheme}://{rest}"))
        }
        _ => Err(invalid(EXPECTED)),
    }
}

fn set_number(setting: &mut Option<usize>, key: &str, value: &str) -> Result<(), LockError> {
    let number = value
        .parse()
        .map_err(|_| invalid(format!("expected a number for `{key}`, got `{value}`")))?;
    setting.get_or_insert(number);
    Ok(())
}

fn read_file(key: &str, path: &str) -> Result<Vec<u8>, LockError> {
    std::fs::read(path).map_err(|error| {
        invalid(format!(
            "expected the name of a file that can be read for `{key}`, got `{path}`: {error}"
        ))
    })
}

fn read_ssl_mode(text: &str) -> Result<SslMode, LockError> {
    match text {
        "disable" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        // Certificates are always checked, and the host's name in them.
        "require" | "verify-ca" | "verify-full" => Ok(SslMode::Require),
        _ => Err(invalid(format!(
            "expected `disable`, `prefer`, `require`, `verify-ca` or `verify-full` for `sslmode`, \
             got `{text}`"
        ))),
    }
}

/// Where the server is, and not who asks it for what.
fn server_name(server: &tokio_postgres::Config) -> String {
    let ports = server.get_ports();
    let hosts = server.get_hosts().iter().enumerate().map(|(at, host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            #[cfg(unix)]
            Host::Unix(directory) => format!("{}:{port}", directory.display()),
        }
    });
    let mut names: Vec<_> = hosts.collect();
    if names.is_empty() {
        names.extend(server.get_hostaddrs().iter().map(ToString::to_string));
    }
    names.join(",")
}

/// What never leaves the machine needs no TLS.
fn default_ssl_mode(server: &tokio_postgres::Config) -> SslMode {
    let is_local = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback())
        }
        #[allow(unreachable_patterns, reason = "there are others on Unix")]
        _ => true,
    };
    let addresses = server.get_hostaddrs();
    if server.get_hosts().iter().all(is_local) && addresses.iter().all(|ip| ip.is_loopback()) {
        SslMode::Disable
    } else {
        SslMode::Require
    }
}

fn notice_dead_peers(server: &mut tokio_postgres::Config, lease: Duration) {
    let noticed = DeadPeers::noticed_within(lease);
    server
        .keepalives(true)
        .keepalives_idle(noticed.idle)
        .keepalives_interval(noticed.interval)
        .keepalives_retries(noticed.probes)
        .tcp_user_timeout(noticed.patience);
}

impl fmt::Debug for PostgresProviderBuilder {
    /// Shows no URL and no certificate: a URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresProviderBuilder")
            .field("key_prefix", &self.key_prefix)
            .field("lease", &self.lease)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("waiting_sessions", &self.waiting_sessions)
            .field("max_sessions", &self.max_sessions)
            .field("max_locks", &self.max_locks)
            .field("snapshot_age", &self.snapshot_age)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
