//! How to connect: the builder, and what it is checked for.

use std::fmt;
use std::time::Duration;

use zookeeper_client::{Acl, Acls, AuthId, Client, Connector, Permission};

use super::ZooKeeperProvider;
use super::address::{Address, Parameters};
use super::path::checked_directory;
use crate::LockError;
use crate::providers::{invalid, limits};

/// The client doubles its pause after every round over its hosts, and soon sleeps as long as an
/// outage has lasted. Hosts are repeated to make rounds of so many attempts, a second apart at most.
const ROUND: usize = 16;
/// The client takes the repeated hosts in any order, so the same silent one may come first several
/// times in a row. With so many attempts in the connect timeout, one of two hosts takes them all
/// once in 286 times, one of three once in 18,564.
const FEWEST_ATTEMPTS: u32 = 6;
/// No host is given less time to answer, unless the lease is so short.
const SHORTEST_SILENCE: Duration = Duration::from_millis(500);

/// Who may see, create and delete the nodes of locks.
///
/// Everybody who is to queue for the same locks needs read, create and delete rights on their
/// nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ZooKeeperAcl {
    /// Anybody: `world:anyone:cdrwa`, the default of ZooKeeper's own tools.
    #[default]
    Open,
    /// Whoever has the same credentials as the provider.
    Creator,
    /// Whoever has these credentials, as ZooKeeper's scheme `digest` names them:
    /// `user:base64(sha1(user:password))`.
    Digest(String),
}

/// Settings of a [`ZooKeeperProvider`]; made by [`ZooKeeperProvider::builder`].
///
/// What is set here wins over what the URL says.
#[must_use = "a builder does nothing until `connect` is called and awaited"]
pub struct ZooKeeperProviderBuilder {
    url: String,
    parameters: Parameters,
    credentials: Option<(String, String)>,
    #[cfg(feature = "zookeeper-tls")]
    tls: super::tls::Tls,
}

/// What the rest of the provider goes by; all checked.
pub(super) struct Settings {
    /// `host:port`, separated by commas.
    pub(super) hosts: String,
    pub(super) directory: String,
    pub(super) key_prefix: String,
    pub(super) lease: Duration,
    pub(super) connect_timeout: Duration,
    /// How long a connection may be silent.
    pub(super) silence: Duration,
    acls: Vec<Acl>,
    credentials: Option<String>,
    #[cfg(feature = "zookeeper-tls")]
    tls: Option<zookeeper_client::TlsOptions>,
}

impl ZooKeeperProviderBuilder {
    pub(super) fn from_url(url: String) -> Self {
        Self {
            url,
            parameters: Parameters::default(),
            credentials: None,
            #[cfg(feature = "zookeeper-tls")]
            tls: super::tls::Tls::default(),
        }
    }

    /// Keeps the locks below this node, which is created where it is missing; by default the
    /// URL's path, or `/`.
    pub fn directory(mut self, directory: impl Into<String>) -> Self {
        self.parameters.directory = Some(directory.into());
        self
    }

    /// Puts this before every name, as it stands: `MyApp1:` and `order` make the node
    /// `MyApp1:order`. By default nothing. URL parameter `key_prefix`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.parameters.key_prefix = Some(prefix.into());
        self
    }

    /// The timeout of the session, which is how long its locks outlive a process that crashed:
    /// 100 ms to 24 h, by default 30 s. URL parameter `lease`.
    ///
    /// The server has the last word: without other settings it takes 2 to 20 of its ticks, which
    /// is 4 to 40 s. All locks of a provider share its session, so a lease that a caller
    /// names for one lock changes nothing.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.parameters.lease = Some(lease);
        self
    }

    /// How long making a session may take, and how long an acquisition that does not wait may
    /// take with an ensemble that does not answer (a release that is under way at that time comes
    /// before it, and may take as long); by default a third of the lease, at least 1 s and at most
    /// 5 s. A single host may be silent for as long; where there are several, one is left for
    /// another after half its share of this, or a sixth if that is less, and 500 ms at least. None
    /// may be silent for longer than a fifth of the lease that was asked for. URL parameter
    /// `connect_timeout`.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.parameters.connect_timeout = Some(timeout);
        self
    }

    /// Shows these credentials to the server, by its scheme `digest`, in place of the URL's. The
    /// connection should then have TLS, since they are sent as they are. The server does not check
    /// them; they count where an ACL names them, so a wrong password is found at the first lock.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Who may see, create and delete the nodes that this provider creates; by default
    /// [anybody](ZooKeeperAcl::Open). URL parameter `acl`: `open` or `creator`.
    pub fn acl(mut self, acl: ZooKeeperAcl) -> Self {
        self.parameters.acl = Some(acl);
        self
    }

    /// Connects with TLS to servers whose certificates these authorities have signed, in PEM
    /// format. There is no TLS without this, and no default.
    #[cfg(feature = "zookeeper-tls")]
    pub fn root_certificates(mut self, pem: impl Into<String>) -> Self {
        self.tls.authorities = Some(pem.into());
        self
    }

    /// The certificate and key, in PEM format, by which this client shows with TLS who it is.
    #[cfg(feature = "zookeeper-tls")]
    pub fn client_certificate(
        mut self,
        certificate_pem: impl Into<String>,
        key_pem: impl Into<String>,
    ) -> Self {
        self.tls.identity = Some((certificate_pem.into(), key_pem.into()));
        self
    }

    /// Makes a session. It belongs to the library's own thread, survives the loss of a connection
    /// or a server, and is made anew when it has ended.
    ///
    /// # Errors
    ///
    /// * [`InvalidConfig`](crate::LockErrorKind::InvalidConfig): a setting or the URL is wrong;
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable): no server can be
    ///   reached, or none answers in time. The error names the servers, and why each cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(self) -> Result<ZooKeeperProvider, LockError> {
        ZooKeeperProvider::open(self.settings()?).await
    }

    fn settings(mut self) -> Result<Settings, LockError> {
        let address = Address::parse(&self.url)?;
        self.parameters.fill_from(&address.parameters)?;
        let parameters = self.parameters;
        let directory = parameters.directory.unwrap_or(address.directory);
        checked_directory(&directory)?;
        let lease = limits::lease(parameters.lease)?;
        let connect_timeout = parameters
            .connect_timeout
            .unwrap_or_else(|| limits::default_connect_timeout(lease));
        if connect_timeout.is_zero() {
            return Err(invalid("expected a connect timeout above zero"));
        }
        let credentials = self.credentials.or(address.credentials);
        let acl = parameters.acl.unwrap_or_default();
        if acl == ZooKeeperAcl::Creator && credentials.is_none() {
            return Err(invalid(
                "only their creator may use the nodes, so there must be credentials",
            ));
        }
        if credentials
            .as_ref()
            .is_some_and(|(user, _)| user.is_empty() || user.contains(':'))
        {
            return Err(invalid("expected a user name without `:`"));
        }
        let attempts = match address.hosts.split(',').count() {
            1 => 1,
            hosts => u32::try_from(hosts * 2)
                .unwrap_or(u32::MAX)
                .max(FEWEST_ATTEMPTS),
        };
        let share = connect_timeout / attempts;
        Ok(Settings {
            hosts: address.hosts,
            directory,
            key_prefix: parameters.key_prefix.unwrap_or_default(),
            lease,
            connect_timeout,
            // There must be time for other hosts before a lock is lost, and signs of life must be
            // close enough to count on most of the lease.
            silence: share.max(SHORTEST_SILENCE).min(lease / 5),
            acls: acl.entries()?,
            credentials: credentials.map(|(user, password)| format!("{user}:{password}")),
            #[cfg(feature = "zookeeper-tls")]
            tls: self.tls.options()?,
        })
    }
}

impl ZooKeeperAcl {
    fn entries(&self) -> Result<Vec<Acl>, LockError> {
        match self {
            Self::Open => Ok(Acls::anyone_all().to_vec()),
            Self::Creator => Ok(Acls::creator_all().to_vec()),
            Self::Digest(id) if id.split_once(':').is_some_and(|(_, hash)| !hash.is_empty()) => {
                let id = AuthId::new("digest", id);
                Ok(vec![Acl::new(Permission::ALL, id)])
            }
            Self::Digest(_) => Err(invalid(
                "expected an ACL like `user:base64(sha1(user:password))`",
            )),
        }
    }
}

impl Settings {
    pub(super) fn acls(&self) -> Acls<'_> {
        Acls::new(&self.acls)
    }

    fn rounds(&self) -> String {
        let hosts = self.hosts.split(',').count();
        vec![self.hosts.as_str(); ROUND.div_ceil(hosts)].join(",")
    }

    /// Makes a new session, or fails when every host has been tried.
    pub(super) async fn connect(&self) -> Result<Client, zookeeper_client::Error> {
        let mut connector: Connector = Client::connector()
            .with_session_timeout(self.lease)
            .with_connection_timeout(self.silence)
            .with_fail_eagerly();
        if let Some(credentials) = &self.credentials {
            connector = connector.with_auth("digest", credentials.as_bytes());
        }
        #[cfg(feature = "zookeeper-tls")]
        if let Some(tls) = &self.tls {
            let connector = connector.with_tls(tls.clone());
            return connector.secure_connect(&self.rounds()).await;
        }
        connector.connect(&self.rounds()).await
    }
}

impl fmt::Debug for ZooKeeperProviderBuilder {
    /// Shows no URL, credentials or certificate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperProviderBuilder")
            .field("directory", &self.parameters.directory)
            .field("key_prefix", &self.parameters.key_prefix)
            .field("lease", &self.parameters.lease)
            .field("connect_timeout", &self.parameters.connect_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_builder_says_wins_over_the_url() {
        let url = "zookeeper://a,b/app/locks?key_prefix=MyApp1:&lease=5s&connect_timeout=2s";
        let builder = ZooKeeperProviderBuilder::from_url(url.to_owned())
            .lease(Duration::from_secs(9))
            .directory("/other");
        let settings = builder.settings().unwrap();
        assert_eq!(settings.hosts, "a,b");
        assert_eq!(settings.directory, "/other");
        assert_eq!(settings.key_prefix, "MyApp1:");
        assert_eq!(settings.lease, Duration::from_secs(9));
        assert_eq!(settings.connect_timeout, Duration::from_secs(2));
        assert_eq!(settings.silence, Duration::from_millis(500));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let url = "zookeeper://user:hunter2@a";
        let builder =
            ZooKeeperProviderBuilder::from_url(url.to_owned()).credentials("u", "hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"));
        for wrong in [
            "zookeeper://user:hunter2@",
            "zookeeper://user:hunter2@a?acl=hunter",
            "zookeeper://user:hunter2@a:port",
            "zookeeper://:hunter2@a",
            "zookeeper://user:hunter2@a//",
            "zookeeper://user:2181?hunter2@a",
            "zookeeper://user:2181/hunter2@a",
            "zookeeper://user:2181//hunter2@127.0.0.1:22181",
            "zookeeper://user:2181/../hunter2@a/locks",
            "zookeeper://user:p@ss/hunter2@a",
            "zookeeper://user:2181//hunter2",
            "zookeeper://user:2181?lease=hunter2@a",
        ] {
            let error = ZooKeeperProviderBuilder::from_url(wrong.to_owned()).settings();
            let error = error.err().expect(wrong);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_directory_may_hold_an_at_sign() {
        let builder = ZooKeeperProviderBuilder::from_url("zookeeper://a/b%40c".to_owned());
        assert_eq!(builder.settings().unwrap().directory, "/b@c");
    }

    #[test]
    fn only_the_creator_needs_credentials() {
        let creator = |url: &str| ZooKeeperProviderBuilder::from_url(url.to_owned()).settings();
        assert!(creator("zookeeper://a?acl=creator").is_err());
        assert!(creator("zookeeper://u:p@a?acl=creator").is_ok());
    }
}
