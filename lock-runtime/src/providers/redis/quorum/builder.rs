//! What can be set for a quorum: the builder, and the parameters of a URL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo};

use super::super::address::{self, HostPort};
use super::super::client::Server;
use super::super::resolver::Resolver;
use super::super::settings::Settings;
use super::super::token_floor::Tokens;
use super::provider::{RedisQuorumProvider, Terms};
use crate::LockError;
use crate::limits::LEASES;
use crate::provider::LockProvider;
use crate::providers::kit::error::{invalid, unsupported};
use crate::providers::kit::settings::{
    CommonOptions, LONGEST_DEFAULT_RESPONSE_TIMEOUT, check_timeouts, common_setters,
};
use crate::providers::kit::url::{
    Authority, UNESCAPED, parameters, set_duration, split, unknown_parameter, without_secrets,
};

const FAILOVER_TIMEOUT: Duration = Duration::from_secs(15);
const LONGEST_LEASE: Duration = Duration::from_secs(60);
/// A server that is out of reach is none of the majority at once, so it is not waited for.
const NO_TIME: Duration = Duration::ZERO;

const PARAMETERS: &[&str] = &[
    "key_prefix",
    "lease",
    "longest_lease",
    "connect_timeout",
    "response_timeout",
    "failover_timeout",
    "restart_delay",
];

const FORM: &str = "redis-quorum://user:password@host:6379,host,host/0, with `rediss-quorum:` for \
                    TLS";
const ONE: &str = "expected several servers, got one: for one server, write redis://host:6379";

/// Settings of a [`RedisQuorumProvider`]; made by [`RedisQuorumProvider::builder`].
///
/// What is set here wins over what the URL says.
#[must_use]
pub struct RedisQuorumProviderBuilder {
    source: Source,
    common: CommonOptions,
    longest_lease: Option<Duration>,
    failover_timeout: Option<Duration>,
    restart_delay: Option<Duration>,
}

enum Source {
    /// One URL that names all servers.
    Url(String),
    /// A URL for each.
    Urls(Vec<String>),
}

impl RedisQuorumProvider {
    /// Connects to the servers of this URL:
    /// `redis-quorum://user:password@host:6379,host,host/database`, or `rediss-quorum:` for TLS,
    /// also written `valkey-quorum:` and `valkeys-quorum:`. User, password and database are those of
    /// all servers.
    ///
    /// Parameters `key_prefix`, `lease`, `longest_lease`, `connect_timeout`, `response_timeout`,
    /// `failover_timeout` and `restart_delay` set what the builder's methods of that name set.
    ///
    /// # Errors
    ///
    /// As [`RedisQuorumProviderBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(url: impl Into<String>) -> Result<Self, LockError> {
        let builder = RedisQuorumProviderBuilder::new(Source::Url(url.into()));
        builder.connect().await
    }

    /// Begins the settings for these servers, each with a URL of its own, such as
    /// `redis://user:password@host:6379/0`, or `rediss:` for TLS. All clients name the same ones.
    pub fn builder(
        urls: impl IntoIterator<Item = impl Into<String>>,
    ) -> RedisQuorumProviderBuilder {
        let urls = urls.into_iter().map(Into::into).collect();
        RedisQuorumProviderBuilder::new(Source::Urls(urls))
    }
}

impl RedisQuorumProviderBuilder {
    fn new(source: Source) -> Self {
        Self {
            source,
            common: CommonOptions::default(),
            longest_lease: None,
            failover_timeout: None,
            restart_delay: None,
        }
    }

    common_setters! {
        /// Puts this before every name, as it stands: `MyApp1:` and `order` make the key
        /// `MyApp1:order`. By default nothing; no NUL. URL parameter `key_prefix`.
        key_prefix;

        /// Sets how long a lock outlives a holder that crashed, where the caller names no lease:
        /// 100 ms to [`longest_lease`](Self::longest_lease), by default 30 s. A live holder renews
        /// it every third of it. URL parameter `lease`.
        lease;

        /// Limits how long making a connection may take, and how long the start waits for a majority;
        /// by default a third of the lease, at least 1 s and at most 5 s. URL parameter
        /// `connect_timeout`.
        connect_timeout;

        /// Limits how long a server may take to answer a request. After that its outcome counts as
        /// unknown and is taken back. By default 2 s, or a third of the lease if that is less. URL
        /// parameter `response_timeout`.
        response_timeout;

        /// Names the ACL user of all servers, in place of the URLs'. It needs a password, be it
        /// empty.
        username;

        /// Sets the password of all servers, in place of the URLs'.
        password;

        /// Trusts these authorities with `rediss:`, in PEM format, in place of the system's.
        root_certificates;

        /// Shows with `rediss:` who this client is, by a certificate and its key in PEM format.
        client_certificate;
    }

    /// Sets the longest lease that a caller may ask for; by default 60 s, at most 24 h. A longer one
    /// is [`Unsupported`](crate::LockErrorKind::Unsupported). All clients set the same. URL parameter
    /// `longest_lease`.
    pub fn longest_lease(mut self, lease: Duration) -> Self {
        self.longest_lease = Some(lease);
        self
    }

    /// Limits how long a waiter puts up with less than a majority; by default 15 s. Then it fails
    /// with [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable), as does a caller
    /// whose own timeout passes meanwhile. URL parameter `failover_timeout`.
    pub fn failover_timeout(mut self, timeout: Duration) -> Self {
        self.failover_timeout = Some(timeout);
        self
    }

    /// Sets how long after its start a server gives no vote, because it may have forgotten those
    /// that it gave; by default [`longest_lease`](Self::longest_lease).
    ///
    /// A shorter delay is only safe where servers keep every write, as with `appendfsync always`,
    /// and in tests. The servers' clocks must agree better than this, for fencing tokens to grow
    /// over a server that forgets. URL parameter `restart_delay`.
    pub fn restart_delay(mut self, delay: Duration) -> Self {
        self.restart_delay = Some(delay);
        self
    }

    /// Connects to a majority of the servers; the others are tried in the background.
    ///
    /// # Errors
    ///
    /// * [`InvalidConfig`](crate::LockErrorKind::InvalidConfig): a setting or a URL is wrong, a server
    ///   is named twice, or one of them refuses the user, the password, the database or a command
    ///   that is needed;
    /// * [`Unsupported`](crate::LockErrorKind::Unsupported): one of them is older than Redis 6.2, in
    ///   a cluster, a sentinel, or no Redis;
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable): a majority cannot be
    ///   reached, does not answer in time, or is a replica.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(self) -> Result<RedisQuorumProvider, LockError> {
        let (servers, terms) = self.settings()?;
        RedisQuorumProvider::open(servers, terms).await
    }

    fn settings(mut self) -> Result<(Vec<Settings>, Terms), LockError> {
        let servers = self.servers()?;
        let longest_lease = self.longest_lease.unwrap_or(LONGEST_LEASE);
        if !LEASES.contains(&longest_lease) {
            return Err(invalid(format!(
                "expected a `longest_lease` of 100 ms to 24 h, got {longest_lease:?}"
            )));
        }
        let restart_delay = self.restart_delay.unwrap_or(longest_lease);
        if restart_delay > *LEASES.end() {
            return Err(invalid(format!(
                "expected a `restart_delay` of at most 24 h, got {restart_delay:?}"
            )));
        }
        let failover_timeout = self.failover_timeout.unwrap_or(FAILOVER_TIMEOUT);
        check_timeouts(&[failover_timeout])?;
        let mut settings = Vec::with_capacity(servers.len());
        for info in servers {
            let common = self
                .common
                .finish(|lease, _| LONGEST_DEFAULT_RESPONSE_TIMEOUT.min(lease / 3))?;
            if common.lease > longest_lease {
                return Err(invalid(format!(
                    "expected a `lease` of at most {longest_lease:?}, which is the \
                     `longest_lease`, got {:?}",
                    common.lease
                )));
            }
            let server = Server::new(info, &self.common, common.lease)?;
            settings.push(Settings {
                resolver: Resolver::Fixed(Box::new(server)),
                common,
                tokens: Tokens::default(),
                failover_timeout: NO_TIME,
                restart_delay,
            });
        }
        if settings.len() % 2 == 0 {
            tracing::warn!(
                "{} Redis servers bear the loss of no more than {} do",
                settings.len(),
                settings.len() - 1
            );
        }
        let terms = Terms {
            longest_lease,
            failover_timeout,
        };
        Ok((settings, terms))
    }

    /// Reads which servers there are, in the order that all clients share.
    fn servers(&mut self) -> Result<Vec<ConnectionInfo>, LockError> {
        let urls = match &self.source {
            Source::Urls(urls) => urls.clone(),
            Source::Url(url) => {
                let (address, query) = split(url)?;
                without_secrets(&query, self.read_parameters(&query))?;
                of_each(&address)?
            }
        };
        let mut servers = Vec::new();
        for url in &urls {
            let (host, info) = server(url)?;
            if servers.iter().any(|(other, _)| *other == host) {
                return Err(invalid("a server is named twice"));
            }
            servers.push((host, info));
        }
        if servers.len() < 2 {
            return Err(unsupported(ONE));
        }
        servers.sort_by_key(|(host, _)| (host.host().to_owned(), host.port()));
        Ok(servers.into_iter().map(|(_, info)| info).collect())
    }

    fn read_parameters(&mut self, query: &str) -> Result<(), LockError> {
        for (key, value) in parameters(query)? {
            match &*key {
                "longest_lease" => set_duration(&mut self.longest_lease, &key, &value)?,
                "failover_timeout" => set_duration(&mut self.failover_timeout, &key, &value)?,
                "restart_delay" => set_duration(&mut self.restart_delay, &key, &value)?,
                common if self.common.read(common, &value)? => {}
                unknown => return Err(unknown_parameter(unknown, PARAMETERS)),
            }
        }
        Ok(())
    }
}

/// Makes a URL for each server of one that names all.
fn of_each(address: &str) -> Result<Vec<String>, LockError> {
    let expected = |what: &str| invalid(format!("expected a URL like {FORM}: {what}"));
    let scheme = address.split(':').next().unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    let scheme = scheme.strip_suffix("-quorum");
    let scheme = scheme.ok_or_else(|| expected("another scheme"))?;
    let parts = Authority::of(address).ok_or_else(|| expected("`//` is missing"))?;
    // What looks like the hosts and the path may be a password with a bare `/`.
    if parts.path.contains('@') {
        return Err(invalid(UNESCAPED));
    }
    let credentials = parts.credentials.map(|it| format!("{it}@"));
    let credentials = credentials.unwrap_or_default();
    let hosts = parts.hosts.split(',').map(|host| {
        HostPort::parse(host, PORT)
            .map(|host| format!("{scheme}://{credentials}{host}{}", parts.path))
            .ok_or_else(|| {
                expected("a host or port is missing or wrong; an IPv6 address stands in brackets")
            })
    });
    hosts.collect()
}

const PORT: u16 = 6_379;

/// Reads the URL of one server. No error shows a part of it.
fn server(url: &str) -> Result<(HostPort, ConnectionInfo), LockError> {
    let (address, query) = split(url)?;
    if !query.is_empty() {
        return Err(invalid(
            "expected URLs of servers without parameters: other settings are those of the builder",
        ));
    }
    address::check(&address)?;
    let info = address::read(&address)?;
    let host = match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            HostPort::new(host, *port)
        }
        _ => {
            return Err(invalid(
                "expected the URL of a server like redis://host:6379",
            ));
        }
    };
    if !address::has_empty_password(&address) {
        return Ok((host, info));
    }
    // The client takes it for none.
    let settings = info.redis_settings().clone().set_password("");
    Ok((host, info.set_redis_settings(settings)))
}

impl fmt::Debug for RedisQuorumProviderBuilder {
    /// Shows no URL and no certificate: a URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.common
            .debug(f, "RedisQuorumProviderBuilder")
            .field("response_timeout", &self.common.response_timeout)
            .field("longest_lease", &self.longest_lease)
            .field("failover_timeout", &self.failover_timeout)
            .field("restart_delay", &self.restart_delay)
            .field("username", &self.common.username)
            .finish_non_exhaustive()
    }
}

pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    Ok(Arc::new(RedisQuorumProvider::connect(url).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<(Vec<Settings>, Terms), LockError> {
        RedisQuorumProviderBuilder::new(Source::Url(url.to_owned())).settings()
    }

    #[test]
    fn the_servers_come_in_one_order() {
        let names = |url| {
            let (servers, _) = settings(url).expect(url);
            let names = servers.iter().map(|server| server.resolver.describe());
            names.collect::<Vec<_>>().join(" ")
        };
        let sorted = "a:1 a:6379 b:6379";
        assert_eq!(names("redis-quorum://b,A:1,a"), sorted);
        assert_eq!(names("Valkey-Quorum://u:p@a,b,a:1/3"), sorted);
        let urls = ["redis://b", "redis://u:p@a:1/2", "valkey://a:6379"];
        let (servers, _) = RedisQuorumProvider::builder(urls)
            .settings()
            .expect("three");
        let names: Vec<_> = servers.iter().map(|it| it.resolver.describe()).collect();
        assert_eq!(names.join(" "), sorted);
    }

    #[test]
    fn the_delay_is_the_longest_lease() {
        let url = "redis-quorum://a,b,c?longest_lease=20s&lease=5s&failover_timeout=3s";
        let (servers, terms) = settings(url).expect("settings");
        assert_eq!(servers[2].restart_delay, Duration::from_secs(20));
        assert_eq!(servers[0].common.lease, Duration::from_secs(5));
        assert_eq!(terms.failover_timeout, Duration::from_secs(3));
        let (servers, _) = settings("redis-quorum://a,b,c?restart_delay=0s").expect("settings");
        assert_eq!(servers[0].restart_delay, Duration::ZERO);
    }

    #[test]
    fn mistakes_are_said_and_not_shown() {
        for (url, expected) in [
            ("redis-quorum:a", "`//` is missing"),
            ("redis-quorum://", "a host or port"),
            ("redis-quorum://a", "for one server, write"),
            ("redis-quorum://a,b,A:6379", "named twice"),
            ("redis-quorum://a,,b", "a host or port"),
            ("redis-quorum://a,b:secret", "a host or port"),
            ("redis-quorum://u:1/secret@a,b", "written as"),
            ("redis-quorum://a,b,c/secret", "expected a URL like"),
            ("redis-quorum://a,b,c?leese=1s", "did you mean `lease`"),
            ("redis-quorum://a,b,c?lease=61s", "`longest_lease`"),
            ("redis-quorum://a,b,c?longest_lease=25h", "24 h"),
            ("redis-quorum://a,b,c?failover_timeout=0s", "above zero"),
            (
                "redis-quorum://a,b,c?token_floor=1",
                "unknown URL parameter",
            ),
        ] {
            let error = settings(url).err().expect(url).to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        for url in [
            "redis://secret,b",
            "unix:///secret",
            "redis://secret?lease=1s",
            "redis-cluster://secret",
        ] {
            let servers = RedisQuorumProvider::builder(["redis://a", url]).settings();
            let error = servers.err().expect(url).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
