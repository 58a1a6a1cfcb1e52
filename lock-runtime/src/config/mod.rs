//! `LockConfig`: where locks are, as a configuration file or the environment says it.

#[cfg(feature = "serde")]
mod deserialize;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{LockError, LockErrorKind};
use crate::limits::LEASES;
use crate::provider::LockProvider;
use crate::providers::kit::error::invalid;
use crate::providers::{connect_with, known_scheme};
use crate::registry::{self, RegisterError};

/// Where locks are, and the settings that every provider of a server has. With the feature `serde`
/// it is read from a configuration file, the environment, or both. The
/// guide to configuration has examples, and the rules of the settings.
///
/// The URL may hold a password. So `Debug` shows no more of it than its scheme, no error shows a
/// part of it, and there is no `Serialize`.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock_runtime::LockError> {
/// use std::time::Duration;
/// use lock_runtime::LockConfig;
///
/// LockConfig::new("memory:")
///     .key_prefix("shop:")
///     .lease(Duration::from_secs(20))
///     .register()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct LockConfig {
    url: String,
    key_prefix: Option<String>,
    lease: Option<Duration>,
    connect_timeout: Option<Duration>,
    response_timeout: Option<Duration>,
}

impl LockConfig {
    /// Makes the configuration of this URL, with all other settings at their defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key_prefix: None,
            lease: None,
            connect_timeout: None,
            response_timeout: None,
        }
    }

    /// Sets what is put before every name on the server, for several applications on one server.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = Some(prefix.into());
        self
    }

    /// Sets the lease of locks for which the caller asks for none: 100 ms to 24 h, by default 30 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Sets how long an attempt to connect may take. By default it is a third of the lease, but at
    /// least 1 s and at most 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets how long the provider waits for an answer that its server gives at once. Each provider
    /// has its own default, of at most 2 s.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = Some(timeout);
        self
    }

    /// Connects to the provider that this names.
    ///
    /// # Errors
    ///
    /// As [`connect`](crate::connect). [`InvalidConfig`](LockErrorKind::InvalidConfig) also if a
    /// setting is out of bounds, is no whole number of milliseconds, or is a parameter of the URL
    /// too.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(&self) -> Result<Arc<dyn LockProvider>, LockError> {
        connect_with(&self.url, &self.settings()?).await
    }

    /// Connects to the provider that this names, and makes it the default one, as
    /// [`register`](crate::register) does.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect). [`InvalidConfig`](LockErrorKind::InvalidConfig) also if the
    /// provider cannot be registered. Then the [source](std::error::Error::source) is the
    /// [`RegisterError`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await. Then nothing is registered.
    pub async fn register(&self) -> Result<(), LockError> {
        registry::register(self.connect().await?).map_err(refused)
    }

    /// Connects to the provider that this names, and registers it under a name, as
    /// [`register_named`](crate::register_named) does.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await. Then nothing is registered.
    pub async fn register_named(&self, name: impl Into<String>) -> Result<(), LockError> {
        registry::register_named(name, self.connect().await?).map_err(refused)
    }

    /// Returns the settings beside the URL as it would have them, all checked.
    fn settings(&self) -> Result<Vec<(&'static str, String)>, LockError> {
        if let Some(lease) = self.lease
            && !LEASES.contains(&lease)
        {
            return Err(invalid(format!(
                "expected a lease of 100 ms to 24 h, got {lease:?}"
            )));
        }
        let mut settings = Vec::new();
        if let Some(prefix) = &self.key_prefix {
            settings.push(("key_prefix", prefix.clone()));
        }
        for (name, set) in [
            ("lease", self.lease),
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
        ] {
            let Some(span) = set else { continue };
            if span.is_zero() {
                return Err(invalid(format!("expected a `{name}` above zero")));
            }
            let millis = u64::try_from(span.as_millis()).ok();
            match millis.filter(|millis| Duration::from_millis(*millis) == span) {
                Some(millis) => settings.push((name, format!("{millis}ms"))),
                None => {
                    return Err(invalid(format!(
                        "expected a whole number of milliseconds, less than 2^64, for `{name}`, \
                         got {span:?}"
                    )));
                }
            }
        }
        Ok(settings)
    }
}

fn refused(error: RegisterError) -> LockError {
    LockError::new(LockErrorKind::InvalidConfig)
        .with_detail(error.to_string())
        .with_source(error)
}

impl fmt::Debug for LockConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What stands before the first colon of a mistyped URL may be a user's name.
        let scheme =
            known_scheme(&self.url).map_or("…".to_owned(), |scheme| format!("{scheme}:…"));
        f.debug_struct("LockConfig")
            .field("url", &scheme)
            .field("key_prefix", &self.key_prefix)
            .field("lease", &self.lease)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .finish()
    }
}
