//! How to connect: the builder, and the parameters of a URL.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ProtocolVersion, TlsCertificates,
};

use super::RedisProvider;
use super::address;
use super::floor::Tokens;
use crate::LockError;
use crate::providers::limits::DeadPeers;
use crate::providers::url::{parameters, set_duration, split, without_secrets};
use crate::providers::{invalid, limits};

const LONGEST_DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_FAILOVER_TIMEOUT: Duration = Duration::from_secs(15);

/// Settings of a [`RedisProvider`]; made by [`RedisProvider::builder`].
///
/// What is set here wins over what the URL says.
#[must_use = "a builder does nothing until `connect` is called and awaited"]
pub struct RedisProviderBuilder {
    source: Source,
    key_prefix: Option<String>,
    lease: Option<Duration>,
    connect_timeout: Option<Duration>,
    response_timeout: Option<Duration>,
    token_floor: Option<u64>,
    failover_timeout: Option<Duration>,
    restart_delay: Option<Duration>,
    username: Option<String>,
    password: Option<String>,
    root_certificates: Option<Vec<u8>>,
    client_certificate: Option<ClientTlsConfig>,
}

enum Source {
    Url(String),
    Client(Box<Client>),
}

/// What the rest of the provider goes by; all checked.
pub(super) struct Settings {
    pub(super) client: Client,
    pub(super) key_prefix: String,
    pub(super) lease: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
    pub(super) tokens: Tokens,
    pub(super) failover_timeout: Duration,
    pub(super) restart_delay: Duration,
}

impl Settings {
    /// Whether the server is connected to by TCP without TLS.
    pub(super) fn is_plain(&self) -> bool {
        matches!(
            self.client.get_connection_info().addr(),
            ConnectionAddr::Tcp(..)
        )
    }
}

impl RedisProviderBuilder {
    pub(super) fn from_url(url: String) -> Self {
        Self::new(Source::Url(url))
    }

    pub(super) fn from_client(client: Client) -> Self {
        Self::new(Source::Client(Box::new(client)))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            key_prefix: None,
            lease: None,
            connect_timeout: None,
            response_timeout: None,
            token_floor: None,
            failover_timeout: None,
            restart_delay: None,
            username: None,
            password: None,
            root_certificates: None,
            client_certificate: None,
        }
    }

    /// Puts this before every name, as it stands: `MyApp1:` and `order` make the key
    /// `MyApp1:order`. By default nothing; no NUL. URL parameter `key_prefix`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = Some(prefix.into());
        self
    }

    /// How long a lock outlives a holder that crashed, where the caller names no lease: 100 ms to
    /// 24 h, by default 30 s. A live holder renews it every third of it. URL parameter `lease`.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// How long making a connection may take; by default a third of the lease, at least 1 s and at
    /// most 5 s. URL parameter `connect_timeout`.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// How long the server may take to answer a request, after which its outcome counts as
    /// unknown and is undone; by default 2 s, or a third of the lease if that is less. URL
    /// parameter `response_timeout`.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = Some(timeout);
        self
    }

    /// Gives out no fencing token up to this one, such as the highest that another provider has
    /// given out for the locks which move here: below 7 × 10¹⁵, by default none. Every process sets
    /// the same, for as long as stored tokens are compared. URL parameter `token_floor`.
    ///
    /// Tokens are the server's clock in microseconds (1.8 × 10¹⁵ in 2026). With a floor from
    /// 1.7 × 10¹⁵ on, the counter is put before the clock, and a grant carries one token, and so
    /// serves one waiter of its process.
    pub fn token_floor(mut self, floor: u64) -> Self {
        self.token_floor = Some(floor);
        self
    }

    /// How long a waiter puts up with a server that is out of reach; by default 15 s. Then it fails
    /// with [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable), as does a caller
    /// whose own timeout passes meanwhile. Should be longer than a failover takes, which is 10 to
    /// 60 s for most managed servers. URL parameter `failover_timeout`.
    pub fn failover_timeout(mut self, timeout: Duration) -> Self {
        self.failover_timeout = Some(timeout);
        self
    }

    /// How long after its start the server grants this client no lock; by default 0, at most 24 h.
    /// A server that comes back without its data has forgotten who holds which lock, and would
    /// grant each a second time. Where that can happen, set this to the longest lease of all
    /// clients, and in all of them.
    ///
    /// Until the delay is over, a waiter waits, and a try fails with
    /// [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable). Renewals and releases go
    /// on. The server tells its age in whole seconds, so the delay may last up to a second longer.
    /// It ends earlier only if the server's clock is set forward.
    ///
    /// Needs the right to `INFO`; without it, connecting fails. URL parameter `restart_delay`.
    pub fn restart_delay(mut self, delay: Duration) -> Self {
        self.restart_delay = Some(delay);
        self
    }

    /// The ACL user, in place of the URL's. Needs a password, be it empty.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password, in place of the URL's.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The authorities to trust with `rediss:`, in PEM format, in place of the system's.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// The certificate and key, in PEM format, by which this client shows with `rediss:` who it is.
    pub fn client_certificate(
        mut self,
        certificate_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.client_certificate = Some(ClientTlsConfig {
            client_cert: certificate_pem.into(),
            client_key: key_pem.into(),
        });
        self
    }

    /// Connects, and looks whether the server can hold locks. The connection belongs to the
    /// library's own thread, and is made anew whenever it breaks.
    ///
    /// # Errors
    ///
    /// * [`InvalidConfig`](crate::LockErrorKind::InvalidConfig): a setting or the URL is wrong, or
    ///   the server refuses the user, the password, the database or a command that is needed;
    /// * [`Unsupported`](crate::LockErrorKind::Unsupported): the server is older than Redis 6.2,
    ///   a cluster or a sentinel, or no Redis;
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable): it cannot be reached,
    ///   does not answer in time, or is a replica.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(self) -> Result<RedisProvider, LockError> {
        RedisProvider::open(self.settings()?).await
    }

    fn settings(mut self) -> Result<Settings, LockError> {
        let info = match &self.source {
            Source::Client(client) => client.get_connection_info().clone(),
            Source::Url(url) => {
                let (address, parameters) = split(url)?;
                address::check(&address)?;
                let socket = address::is_socket(&address);
                let database =
                    without_secrets(&parameters, self.read_parameters(&parameters, socket))?;
                if address::has_empty_password(&address) {
                    // The client takes it for none.
                    self.password.get_or_insert_default();
                }
                let info = address::read(&address)?;
                match database {
                    Some(database) => {
                        let server = info.redis_settings().clone().set_db(database);
                        info.set_redis_settings(server)
                    }
                    None => info,
                }
            }
        };
        let lease = limits::lease(self.lease)?;
        let response_timeout = self
            .response_timeout
            .unwrap_or(LONGEST_DEFAULT_RESPONSE_TIMEOUT.min(lease / 3));
        let connect_timeout = self
            .connect_timeout
            .unwrap_or_else(|| limits::default_connect_timeout(lease));
        let failover_timeout = self.failover_timeout.unwrap_or(DEFAULT_FAILOVER_TIMEOUT);
        let timeouts = [response_timeout, connect_timeout, failover_timeout];
        if timeouts.iter().any(Duration::is_zero) {
            return Err(invalid("expected timeouts above zero"));
        }
        let restart_delay = self.restart_delay.unwrap_or_default();
        if restart_delay > *limits::LEASES.end() {
            return Err(invalid(format!(
                "expected a `restart_delay` of at most 24 h, got {restart_delay:?}"
            )));
        }
        Ok(Settings {
            client: self.client(info, lease)?,
            key_prefix: self.key_prefix.unwrap_or_default(),
            lease,
            connect_timeout,
            response_timeout,
            tokens: Tokens::above(self.token_floor.unwrap_or(0))?,
            failover_timeout,
            restart_delay,
        })
    }

    fn client(&self, info: ConnectionInfo, lease: Duration) -> Result<Client, LockError> {
        let mut server = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        if server.lib_name().is_none() && !server.skip_set_lib_name() {
            server = server.set_lib_name("lock-runtime", env!("CARGO_PKG_VERSION"));
        }
        if let Some(username) = &self.username {
            server = server.set_username(username);
        }
        if let Some(password) = &self.password {
            server = server.set_password(password);
        }
        if server.username().is_some() && server.password().is_none() {
            // The client would connect as the default user.
            return Err(invalid(
                "expected a password for the user name; an empty one is written as in \
                 `redis://user:@host`, or set by `password(\"\")`",
            ));
        }
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let info = info
            .set_redis_settings(server)
            .set_tcp_settings(tcp_settings(lease));
        if tls && rustls::crypto::CryptoProvider::get_default().is_none() {
            // Without it rustls panics where a program's other crates bring a second one. If
            // another thread is quicker, its choice is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let wrong = |error: redis::RedisError| invalid(address::plain(&error));
        if self.root_certificates.is_none() && self.client_certificate.is_none() {
            return Client::open(info).map_err(wrong);
        }
        if !tls {
            return Err(invalid("certificates need a URL that begins with rediss:"));
        }
        let certificates = TlsCertificates {
            client_tls: self.client_certificate.clone(),
            root_cert: self.root_certificates.clone(),
        };
        Client::build_with_tls(info, certificates).map_err(wrong)
    }

    /// Reads the query; answers the database, which a Unix socket's URL names there.
    fn read_parameters(&mut self, query: &str, socket: bool) -> Result<Option<i64>, LockError> {
        let mut database = None;
        for (key, value) in parameters(query)? {
            match &*key {
                "key_prefix" => {
                    self.key_prefix.get_or_insert_with(|| value.into_owned());
                }
                "lease" => set_duration(&mut self.lease, &key, &value)?,
                "connect_timeout" => set_duration(&mut self.connect_timeout, &key, &value)?,
                "response_timeout" => set_duration(&mut self.response_timeout, &key, &value)?,
                "token_floor" => {
                    let floor = value.parse().map_err(|_| {
                        invalid(format!(
                            "expected a whole number for `token_floor`, got `{value}`"
                        ))
                    })?;
                    self.token_floor.get_or_insert(floor);
                }
                "failover_timeout" => set_duration(&mut self.failover_timeout, &key, &value)?,
                "restart_delay" => set_duration(&mut self.restart_delay, &key, &value)?,
                "db" if socket => {
                    let number = value.parse();
                    database = Some(number.map_err(|_| invalid("expected a number for `db`"))?);
                }
                "user" if socket => {
                    self.username.get_or_insert_with(|| value.into_owned());
                }
                "pass" if socket => {
                    self.password.get_or_insert_with(|| value.into_owned());
                }
                unknown => {
                    return Err(invalid(format!(
                        "unknown URL parameter `{unknown}`; expected `key_prefix`, `lease`, \
                         `connect_timeout`, `response_timeout`, `failover_timeout`, \
                         `restart_delay` or `token_floor`{}",
                        if socket {
                            ", `db`, `user` or `pass`"
                        } else {
                            ""
                        }
                    )));
                }
            }
        }
        Ok(database)
    }
}

impl fmt::Debug for RedisProviderBuilder {
    /// Shows no URL and no certificate: a URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisProviderBuilder")
            .field("key_prefix", &self.key_prefix)
            .field("lease", &self.lease)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("token_floor", &self.token_floor)
            .field("failover_timeout", &self.failover_timeout)
            .field("restart_delay", &self.restart_delay)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

fn tcp_settings(lease: Duration) -> TcpSettings {
    let noticed = DeadPeers::noticed_within(lease);
    let keepalive = TcpKeepalive::new().with_time(noticed.idle);
    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        windows
    ))]
    let keepalive = keepalive.with_interval(noticed.interval);
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    let keepalive = keepalive.with_retries(noticed.probes);
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let settings = settings.set_user_timeout(noticed.patience);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::limits::{DEFAULT_LEASE, LEASES};

    #[test]
    fn what_the_builder_says_wins_over_the_url() {
        let builder = RedisProviderBuilder::from_url(
            "redis://localhost?key_prefix=MyApp1:&lease=5s&response_timeout=300ms\
             &failover_timeout=1m&restart_delay=0s"
                .to_owned(),
        )
        .restart_delay(Duration::from_secs(8))
        .lease(Duration::from_secs(7));
        let settings = builder.settings().unwrap();
        assert_eq!(settings.key_prefix, "MyApp1:");
        assert_eq!(settings.lease, Duration::from_secs(7));
        assert_eq!(settings.response_timeout, Duration::from_millis(300));
        assert_eq!(settings.connect_timeout, Duration::from_secs(7) / 3);
        assert_eq!(settings.failover_timeout, Duration::from_secs(60));
        assert_eq!(settings.restart_delay, Duration::from_secs(8));
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn a_connection_is_given_up_in_time_for_another_renewal() {
        for lease in [*LEASES.start(), DEFAULT_LEASE, *LEASES.end()] {
            let settings = tcp_settings(lease);
            assert!(settings.keepalive().is_some());
            let patience = settings.user_timeout().expect("an end to patience");
            assert!(!patience.is_zero() && patience <= lease / 3, "{patience:?}");
        }
    }
}
