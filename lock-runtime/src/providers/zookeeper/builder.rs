//! How to connect: the builder, and the parameters of a URL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::acl::ZooKeeperAcl;
use super::address::Address;
use super::path::checked_directory;
use super::provider::ZooKeeperProvider;
use super::settings::Settings;
#[cfg(feature = "zookeeper-tls")]
use super::tls::tls_options;
use crate::LockError;
use crate::provider::LockProvider;
use crate::providers::kit::error::invalid;
use crate::providers::kit::settings::{
    CommonOptions, LONGEST_DEFAULT_RESPONSE_TIMEOUT, common_setters,
};
use crate::providers::kit::url::{parameters, unknown_parameter, without_secrets};

/// The client takes the repeated hosts in any order, so the same silent one may come first several
/// times in a row. With so many attempts in the connect timeout, one of two hosts takes them all
/// once in 286 times, one of three once in 18,564.
const FEWEST_ATTEMPTS: u32 = 6;
/// The parameters of a URL.
const PARAMETERS: [&str; 5] = [
    "key_prefix",
    "lease",
    "connect_timeout",
    "response_timeout",
    "acl",
];
/// No host is given less time to answer, unless the lease is so short.
const SHORTEST_SILENCE: Duration = Duration::from_millis(500);

/// Settings of a [`ZooKeeperProvider`]; made by [`ZooKeeperProvider::builder`].
///
/// What is set here wins over what the URL says.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use lock_runtime::ZooKeeperProvider;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let provider = ZooKeeperProvider::builder("zookeeper://zk1:2181,zk2:2181,zk3:2181")
///     .directory("/myapp/locks")
///     .key_prefix("MyApp1:")
///     .lease(Duration::from_secs(20))
///     .connect()
///     .await?;
/// lock_runtime::register(provider)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `connect` is called and awaited"]
pub struct ZooKeeperProviderBuilder {
    url: String,
    common: CommonOptions,
    directory: Option<String>,
    acl: Option<ZooKeeperAcl>,
}

impl ZooKeeperProviderBuilder {
    fn from_url(url: String) -> Self {
        Self {
            url,
            common: CommonOptions::default(),
            directory: None,
            acl: None,
        }
    }

    /// Keeps the locks below this node, which is created where it is missing; by default the
    /// URL's path, or `/`.
    pub fn directory(mut self, directory: impl Into<String>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    common_setters! {
        /// Puts this before every name, as it stands: `MyApp1:` and `order` make the node
        /// `MyApp1:order`. By default nothing. URL parameter `key_prefix`.
        key_prefix;

        /// Sets the timeout of the session, which is how long its locks outlive a process that
        /// crashed: 100 ms to 24 h, by default 30 s. URL parameter `lease`.
        ///
        /// The server has the last word: without other settings it takes 2 to 20 of its ticks,
        /// which is 4 to 40 s. All locks of a provider share its session, so a lease that a caller
        /// names for one lock changes nothing.
        lease;

        /// Limits how long making a session may take, and for how long a waiter puts up with an
        /// ensemble that is gone. By default a third of the lease, at least 1 s and at most 5 s.
        /// URL parameter `connect_timeout`.
        ///
        /// A single host may be silent for as long. Where there are several, one is left for
        /// another after half its share of this, or a sixth if that is less, and 500 ms at least.
        /// None may be silent for longer than a fifth of the lease that was asked for.
        connect_timeout;

        /// Limits how long the ensemble may take to answer an acquisition that does not wait, or a
        /// release. After that the request's outcome counts as unknown, and what it may have taken
        /// is released. A release without a connection waits for one, for up to half of the connect
        /// timeout.
        ///
        /// By default 2 s, or the connect timeout if that is less. URL parameter
        /// `response_timeout`.
        response_timeout;
    }

    common_setters! {
        /// Sets the user that is shown to the server, by its scheme `digest`, in place of the
        /// URL's.
        ///
        /// The connection should then have TLS, since name and password are sent as they are. The
        /// server does not check them. They count where an ACL names them, so a wrong password is
        /// found at the first lock.
        username;

        /// Sets the password that belongs to the [`username`](Self::username), in place of the
        /// URL's.
        password;
    }

    /// Sets the user and the password.
    #[deprecated(note = "use `username` and `password`, as with every other provider")]
    pub fn credentials(self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.username(user).password(password)
    }

    /// Sets who may see, create and delete the nodes that this provider creates; by default
    /// [anybody](ZooKeeperAcl::Open). URL parameter `acl`: `open` or `creator`.
    pub fn acl(mut self, acl: ZooKeeperAcl) -> Self {
        self.acl = Some(acl);
        self
    }

    common_setters! {
        /// Connects with TLS to servers whose certificates these authorities have signed, in PEM
        /// format. There is no TLS without this, and no default.
        #[cfg(feature = "zookeeper-tls")]
        root_certificates;

        /// Shows with TLS who this client is, by a certificate and its key in PEM format.
        #[cfg(feature = "zookeeper-tls")]
        client_certificate;
    }

    /// Makes a session. It belongs to the library's own thread, survives the loss of a connection
    /// or a server, and is made anew when it has ended.
    ///
    /// # Errors
    ///
    /// * [`InvalidConfig`](crate::LockErrorKind::InvalidConfig): a setting or the URL is wrong;
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable): no server can be
    ///   reached, or none answers in time. The error names the servers, and why each cannot be
    ///   reached.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(self) -> Result<ZooKeeperProvider, LockError> {
        ZooKeeperProvider::open(self.settings()?).await
    }

    fn settings(mut self) -> Result<Settings, LockError> {
        let address = Address::parse(&self.url)?;
        let query = &address.parameters;
        without_secrets(query, self.read_parameters(query))?;
        let directory = self.directory.unwrap_or(address.directory);
        checked_directory(&directory)?;
        let common = self
            .common
            .finish(|_, connect_timeout| LONGEST_DEFAULT_RESPONSE_TIMEOUT.min(connect_timeout))?;
        #[cfg(feature = "zookeeper-tls")]
        let tls = tls_options(&self.common)?;
        let credentials = self.common.username.zip(self.common.password);
        let credentials = credentials.or(address.credentials);
        let acl = self.acl.unwrap_or_default();
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
        let share = common.connect_timeout / attempts;
        Ok(Settings {
            hosts: address.hosts,
            directory,
            // There must be time for other hosts before a lock is lost, and signs of life must be
            // close enough to count on most of the lease.
            silence: share.max(SHORTEST_SILENCE).min(common.lease / 5),
            common,
            acls: acl.entries()?,
            credentials: credentials.map(|(user, password)| format!("{user}:{password}")),
            #[cfg(feature = "zookeeper-tls")]
            tls,
        })
    }

    /// Reads the query.
    fn read_parameters(&mut self, query: &str) -> Result<(), LockError> {
        for (key, value) in parameters(query)? {
            match &*key {
                "acl" => {
                    let acl = match &*value {
                        "open" => ZooKeeperAcl::Open,
                        "creator" => ZooKeeperAcl::Creator,
                        _ => return Err(invalid("expected `open` or `creator` for `acl`")),
                    };
                    self.acl.get_or_insert(acl);
                }
                common if self.common.read(common, &value)? => {}
                unknown => return Err(unknown_parameter(unknown, &PARAMETERS)),
            }
        }
        Ok(())
    }
}

impl ZooKeeperProvider {
    /// Connects to the ensemble of this URL,
    /// `zookeeper://user:password@host:port,host:port/directory`,
    /// where the port is 2181 if none is named. In a user name, a password or a directory, `@` is
    /// written `%40`.
    ///
    /// Parameters `key_prefix`, `lease`, `connect_timeout`, `response_timeout` and `acl` set what
    /// the builder's methods of that name set.
    ///
    /// # Errors
    ///
    /// As [`ZooKeeperProviderBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(url: impl Into<String>) -> Result<Self, LockError> {
        Self::builder(url).connect().await
    }

    /// Begins the settings for the ensemble of this URL; see [`connect`](Self::connect).
    pub fn builder(url: impl Into<String>) -> ZooKeeperProviderBuilder {
        ZooKeeperProviderBuilder::from_url(url.into())
    }
}

pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    Ok(Arc::new(ZooKeeperProvider::connect(url).await?))
}

impl fmt::Debug for ZooKeeperProviderBuilder {
    /// Shows no URL, credentials or certificate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.common
            .debug(f, "ZooKeeperProviderBuilder")
            .field("response_timeout", &self.common.response_timeout)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_builder_says_wins_over_the_url() {
        let url = "zookeeper://a,b/app/locks?key_prefix=MyApp1:&lease=5s&connect_timeout=2s\
                   &response_timeout=700ms";
        let builder = ZooKeeperProviderBuilder::from_url(url.to_owned())
            .lease(Duration::from_secs(9))
            .directory("/other");
        let settings = builder.settings().unwrap();
        assert_eq!(settings.hosts, "a,b");
        assert_eq!(settings.directory, "/other");
        assert_eq!(settings.common.key_prefix, "MyApp1:");
        assert_eq!(settings.common.lease, Duration::from_secs(9));
        assert_eq!(settings.common.connect_timeout, Duration::from_secs(2));
        assert_eq!(settings.common.response_timeout, Duration::from_millis(700));
        assert_eq!(settings.silence, Duration::from_millis(500));
    }

    #[test]
    fn an_answer_may_take_two_seconds_or_less() {
        for (query, millis) in [
            ("", 2_000),
            ("lease=3s", 1_000),
            ("lease=300ms", 1_000),
            ("connect_timeout=1500ms", 1_500),
            ("connect_timeout=1s&response_timeout=3s", 3_000),
        ] {
            let url = format!("zookeeper://a?{query}");
            let settings = ZooKeeperProviderBuilder::from_url(url).settings().unwrap();
            let expected = Duration::from_millis(millis);
            assert_eq!(settings.common.response_timeout, expected, "{query}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let url = "zookeeper://user:hunter2@a";
        let builder = ZooKeeperProviderBuilder::from_url(url.to_owned())
            .username("u")
            .password("hunter2");
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
    fn what_is_no_parameter_or_no_value_is_refused() {
        let error = |query: &str| {
            let url = format!("zookeeper://a?{query}");
            let settings = ZooKeeperProviderBuilder::from_url(url).settings();
            settings.err().expect(query).to_string()
        };
        for known in PARAMETERS {
            assert!(error("leas=5s").contains(&format!("`{known}`")), "{known}");
        }
        assert!(error("acl=everybody").contains("`creator`"));
        for timeout in ["connect_timeout=0s", "response_timeout=0s"] {
            assert!(error(timeout).contains("timeouts above zero"), "{timeout}");
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
