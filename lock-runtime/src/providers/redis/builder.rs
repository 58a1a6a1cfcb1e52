//! What can be set: the builder, and the parameters of a URL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Client, ConnectionInfo};

use super::address;
use super::client::Server;
use super::provider::RedisProvider;
use super::resolver::Resolver;
use super::sentinel::{
    PARAMETERS as OF_SENTINELS, SentinelOptions, SentinelSettings, SentinelUrl, Sentinels,
    is_of_sentinels,
};
use super::settings::Settings;
use super::token_floor::Tokens;
use crate::LockError;
use crate::limits::LEASES;
use crate::providers::kit::error::invalid;
use crate::providers::kit::settings::{
    CommonOptions, LONGEST_DEFAULT_RESPONSE_TIMEOUT, check_timeouts, common_setters,
};
use crate::providers::kit::url::{
    parameters, set_duration, split, unknown_parameter, without_secrets,
};

const FAILOVER_TIMEOUT: Duration = Duration::from_secs(15);
/// Sentinels begin a failover 30 s after a server has fallen silent, if nobody has told them
/// otherwise.
const FAILOVER_TIMEOUT_OF_SENTINELS: Duration = Duration::from_secs(30);

/// The parameters of a URL, and those of sockets beside them.
const PARAMETERS: &[&str] = &[
    "key_prefix",
    "lease",
    "connect_timeout",
    "response_timeout",
    "failover_timeout",
    "restart_delay",
    "token_floor",
];
const OF_SOCKETS: &[&str] = &["db", "user", "pass"];

/// Settings of a [`RedisProvider`]; made by [`RedisProvider::builder`].
///
/// What is set here wins over what the URL says.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use lock_runtime::RedisProvider;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let provider = RedisProvider::builder("redis://127.0.0.1:6379")
///     .key_prefix("MyApp1:")
///     .lease(Duration::from_secs(20))
///     .restart_delay(Duration::from_secs(20))
///     .connect()
///     .await?;
/// lock_runtime::register(provider)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `connect` is called and awaited"]
pub struct RedisProviderBuilder {
    source: Source,
    common: CommonOptions,
    sentinels: SentinelOptions,
    server_name: Option<String>,
    token_floor: Option<u64>,
    failover_timeout: Option<Duration>,
    restart_delay: Option<Duration>,
}

enum Source {
    Url(String),
    Client(Box<Client>),
    /// The name of the service, and where the sentinels are.
    Sentinels(String, Vec<String>),
}

/// What a URL may hold beside what every URL may.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Socket,
    Sentinels,
}

impl RedisProviderBuilder {
    pub(super) fn from_url(url: String) -> Self {
        Self::new(Source::Url(url))
    }

    pub(super) fn from_client(client: Client) -> Self {
        Self::new(Source::Client(Box::new(client)))
    }

    pub(super) fn of_sentinels(service: String, urls: Vec<String>) -> Self {
        Self::new(Source::Sentinels(service, urls))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            common: CommonOptions::default(),
            sentinels: SentinelOptions::default(),
            server_name: None,
            token_floor: None,
            failover_timeout: None,
            restart_delay: None,
        }
    }

    common_setters! {
        /// Puts this before every name, as it stands: `MyApp1:` and `order` make the key
        /// `MyApp1:order`. By default nothing; no NUL. URL parameter `key_prefix`.
        key_prefix;

        /// Sets how long a lock outlives a holder that crashed, where the caller names no lease:
        /// 100 ms to 24 h, by default 30 s. A live holder renews it every third of it. URL
        /// parameter `lease`.
        lease;

        /// Limits how long making a connection may take; by default a third of the lease, at least
        /// 1 s and at most 5 s. URL parameter `connect_timeout`.
        connect_timeout;

        /// Limits how long the server may take to answer a request. After that its outcome counts
        /// as unknown and is taken back. By default 2 s, or a third of the lease if that is less.
        /// URL parameter `response_timeout`.
        response_timeout;

        /// Names the ACL user, in place of the URL's. It needs a password, be it empty.
        username;

        /// Sets the password, in place of the URL's.
        password;

        /// Trusts these authorities with `rediss:`, in PEM format, in place of the system's.
        root_certificates;

        /// Shows with `rediss:` who this client is, by a certificate and its key in PEM format.
        client_certificate;
    }

    /// Gives out no fencing token up to this one, such as the highest that another provider has
    /// given out for the locks which move here. It is below 7 × 10¹⁵, by default none. Every
    /// process sets the same, for as long as stored tokens are compared. URL parameter
    /// `token_floor`.
    ///
    /// Tokens are the server's clock in microseconds (1.8 × 10¹⁵ in 2026). With a floor from
    /// 1.7 × 10¹⁵ on, the counter is put before the clock, and a grant carries one token, and so
    /// serves one waiter of its process.
    pub fn token_floor(mut self, floor: u64) -> Self {
        self.token_floor = Some(floor);
        self
    }

    /// Limits how long a waiter puts up with a server that is out of reach; by default 15 s, and
    /// 30 s with sentinels. Then it fails with
    /// [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable), as does a caller whose
    /// own timeout passes meanwhile. It should be longer than a failover takes, which is 10 to 60 s
    /// for most managed servers. URL parameter `failover_timeout`.
    pub fn failover_timeout(mut self, timeout: Duration) -> Self {
        self.failover_timeout = Some(timeout);
        self
    }

    /// Sets how long after its start the server grants this client no lock; by default 0, at most
    /// 24 h. A server that comes back without its data has forgotten who holds which lock, and
    /// would grant each a second time. Where that can happen, set this to the longest lease of all
    /// clients, and in all of them.
    ///
    /// Until the delay is over, a waiter waits, and a try fails with
    /// [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable). Renewals and releases go
    /// on. The server tells its age in whole seconds, so the delay may last up to a second longer.
    /// It ends earlier only if the server's clock is set forward.
    ///
    /// This needs the right to `INFO`; without it, connecting fails. URL parameter `restart_delay`.
    pub fn restart_delay(mut self, delay: Duration) -> Self {
        self.restart_delay = Some(delay);
        self
    }

    /// Names the sentinels' ACL user, with sentinels. It needs a password. By default there is none,
    /// whatever the servers' is. URL parameter `sentinel_username`.
    pub fn sentinel_username(mut self, username: impl Into<String>) -> Self {
        self.sentinels.username = Some(username.into());
        self
    }

    /// Sets the sentinels' password; by default none, whatever the servers' is. URL parameter
    /// `sentinel_password`.
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.sentinels.password = Some(password.into());
        self
    }

    /// Says whether the sentinels are connected to with TLS; by default as the servers are. URL
    /// parameter `sentinel_tls`.
    pub fn sentinel_tls(mut self, tls: bool) -> Self {
        self.sentinels.tls = Some(tls);
        self
    }

    /// Trusts these authorities with sentinels, in PEM format; by default those that are trusted
    /// with the servers.
    pub fn sentinel_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.sentinels.root_certificates = Some(pem.into());
        self
    }

    /// Expects this name in the servers' certificates, whatever their hosts are called. It needs
    /// TLS. Sentinels tell addresses, unless they `resolve-hostnames` and `announce-hostnames`.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Says where to connect to in place of a host and port that sentinels tell, of a server or of
    /// another sentinel. It is for networks in which their addresses mean nothing here, such as
    /// those of containers.
    pub fn address_map(
        mut self,
        map: impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static,
    ) -> Self {
        self.sentinels.address_map = Some(Arc::new(map));
        self
    }

    /// Connects, and looks whether the server can hold locks. The connection belongs to the
    /// library's own thread, and is made anew whenever it breaks.
    ///
    /// # Errors
    ///
    /// * [`InvalidConfig`](crate::LockErrorKind::InvalidConfig): a setting or the URL is wrong, the
    ///   server or a sentinel refuses the user, the password, the database or a command that is
    ///   needed, or no sentinel that answers knows the service;
    /// * [`Unsupported`](crate::LockErrorKind::Unsupported): the server is older than Redis 6.2,
    ///   a cluster, a sentinel whose URL is that of a server, or no Redis;
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable): it cannot be reached,
    ///   does not answer in time, or is a replica; or no sentinel answers.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(self) -> Result<RedisProvider, LockError> {
        RedisProvider::open(self.settings()?).await
    }

    fn settings(mut self) -> Result<Settings, LockError> {
        let place = self.place()?;
        let common = self
            .common
            .finish(|lease, _| LONGEST_DEFAULT_RESPONSE_TIMEOUT.min(lease / 3))?;
        let default = match place {
            Place::Server(_) => FAILOVER_TIMEOUT,
            _ => FAILOVER_TIMEOUT_OF_SENTINELS,
        };
        let failover_timeout = self.failover_timeout.unwrap_or(default);
        check_timeouts(&[failover_timeout])?;
        let restart_delay = self.restart_delay.unwrap_or_default();
        if restart_delay > *LEASES.end() {
            return Err(invalid(format!(
                "expected a `restart_delay` of at most 24 h, got {restart_delay:?}"
            )));
        }
        let (servers, sentinels) = (&self.common, self.sentinels);
        let beside = (&common, self.server_name.clone());
        let resolver = match place {
            Place::Server(info) => {
                sentinels.refuse()?;
                let server = Server::new(info, servers, common.lease)?;
                Resolver::Fixed(Box::new(server.verified_as(self.server_name)?))
            }
            Place::Url(url) => sentinels.by_url(url, servers, beside)?.into(),
            Place::List(service, urls) => {
                sentinels.by_list(&service, &urls, servers, beside)?.into()
            }
        };
        Ok(Settings {
            resolver,
            common,
            tokens: Tokens::above(self.token_floor.unwrap_or(0))?,
            failover_timeout,
            restart_delay,
        })
    }

    /// Reads what the source names, and the parameters of its URL.
    fn place(&mut self) -> Result<Place, LockError> {
        let url = match &self.source {
            Source::Client(client) => {
                return Ok(Place::Server(client.get_connection_info().clone()));
            }
            Source::Sentinels(service, urls) => {
                return Ok(Place::List(service.clone(), urls.clone()));
            }
            Source::Url(url) => url,
        };
        let (address, parameters) = split(url)?;
        if is_of_sentinels(&address) {
            without_secrets(
                &parameters,
                self.read_parameters(&parameters, Kind::Sentinels),
            )?;
            return SentinelUrl::parse(&address).map(Place::Url);
        }
        address::check(&address)?;
        let kind = match address::is_socket(&address) {
            true => Kind::Socket,
            false => Kind::Tcp,
        };
        let database = without_secrets(&parameters, self.read_parameters(&parameters, kind))?;
        if address::has_empty_password(&address) {
            // The client takes it for none.
            self.common.password.get_or_insert_default();
        }
        let info = address::read(&address)?;
        Ok(Place::Server(match database {
            Some(database) => {
                let server = info.redis_settings().clone().set_db(database);
                info.set_redis_settings(server)
            }
            None => info,
        }))
    }

    /// Reads the query, and returns the database, which a Unix socket's URL names there.
    fn read_parameters(&mut self, query: &str, kind: Kind) -> Result<Option<i64>, LockError> {
        let mut database = None;
        let socket = kind == Kind::Socket;
        for (key, value) in parameters(query)? {
            match &*key {
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
                    self.common
                        .username
                        .get_or_insert_with(|| value.into_owned());
                }
                "pass" if socket => {
                    self.common
                        .password
                        .get_or_insert_with(|| value.into_owned());
                }
                common if self.common.read(common, &value)? => {}
                more if kind == Kind::Sentinels && self.sentinels.read(more, &value)? => {}
                unknown => {
                    let more = match kind {
                        Kind::Tcp => &[],
                        Kind::Socket => OF_SOCKETS,
                        Kind::Sentinels => OF_SENTINELS,
                    };
                    return Err(unknown_parameter(unknown, &[PARAMETERS, more].concat()));
                }
            }
        }
        Ok(database)
    }
}

/// What is to be connected to.
enum Place {
    Server(ConnectionInfo),
    Url(SentinelUrl),
    /// The name of a service, and where its sentinels are.
    List(String, Vec<String>),
}

impl From<SentinelSettings> for Resolver {
    fn from(settings: SentinelSettings) -> Self {
        Self::Sentinels(Arc::new(Sentinels::new(settings)))
    }
}

impl fmt::Debug for RedisProviderBuilder {
    /// Shows no URL and no certificate: a URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.common
            .debug(f, "RedisProviderBuilder")
            .field("response_timeout", &self.common.response_timeout)
            .field("token_floor", &self.token_floor)
            .field("failover_timeout", &self.failover_timeout)
            .field("restart_delay", &self.restart_delay)
            .field("username", &self.common.username)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_by_sentinels_is_waited_for_longer() {
        for (url, seconds) in [
            ("redis://localhost", 15),
            ("redis-sentinel://localhost?service=a", 30),
            ("redis+sentinel://localhost/a?failover_timeout=7s", 7),
        ] {
            let builder = RedisProviderBuilder::from_url(url.to_owned());
            let settings = builder.settings().unwrap();
            assert_eq!(settings.failover_timeout.as_secs(), seconds, "{url}");
        }
    }

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
        assert_eq!(settings.common.key_prefix, "MyApp1:");
        assert_eq!(settings.common.lease, Duration::from_secs(7));
        assert_eq!(settings.common.response_timeout, Duration::from_millis(300));
        assert_eq!(settings.common.connect_timeout, Duration::from_secs(7) / 3);
        assert_eq!(settings.failover_timeout, Duration::from_secs(60));
        assert_eq!(settings.restart_delay, Duration::from_secs(8));
    }
}
