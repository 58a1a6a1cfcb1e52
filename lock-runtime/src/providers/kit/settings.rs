//! What can be set for the provider of every server, by its builder or by a URL.

use std::fmt;
use std::time::Duration;

use super::error::invalid;
use super::tls::Identity;
use super::url::set_duration;
use crate::LockError;
use crate::limits::LEASES;

pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(30);
pub(crate) const LONGEST_DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
const LONGEST_DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SHORTEST_DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a builder or a URL may have set, whichever the server is. The builder wins.
#[derive(Default)]
pub(crate) struct CommonOptions {
    pub(crate) key_prefix: Option<String>,
    pub(crate) lease: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) response_timeout: Option<Duration>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) root_certificates: Option<Vec<u8>>,
    pub(crate) client_certificate: Option<Identity>,
}

/// The settings that the provider of every server goes by; all checked.
pub(crate) struct Common {
    pub(crate) key_prefix: String,
    pub(crate) lease: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

impl CommonOptions {
    /// Takes a URL parameter if it is one of these, and says whether it is.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if the value is not what the parameter
    /// takes.
    pub(crate) fn read(&mut self, key: &str, value: &str) -> Result<bool, LockError> {
        match key {
            "key_prefix" => {
                self.key_prefix.get_or_insert_with(|| value.to_owned());
            }
            "lease" => set_duration(&mut self.lease, key, value)?,
            "connect_timeout" => set_duration(&mut self.connect_timeout, key, value)?,
            "response_timeout" => set_duration(&mut self.response_timeout, key, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks what was set, and fills in what was not. The default of the response timeout depends
    /// on the server: it is made of the lease and the connect timeout.
    pub(crate) fn finish(
        &self,
        response_timeout: impl FnOnce(Duration, Duration) -> Duration,
    ) -> Result<Common, LockError> {
        let lease = lease(self.lease)?;
        let connect_timeout = self
            .connect_timeout
            .unwrap_or_else(|| default_connect_timeout(lease));
        let response_timeout = self
            .response_timeout
            .unwrap_or_else(|| response_timeout(lease, connect_timeout));
        let common = Common {
            key_prefix: self.key_prefix.clone().unwrap_or_default(),
            lease,
            connect_timeout,
            response_timeout,
        };
        check_timeouts(&[common.response_timeout, common.connect_timeout])?;
        Ok(common)
    }

    /// Begins what `Debug` shows of a builder: neither its URL nor certificates or credentials.
    pub(crate) fn debug<'a, 'b>(
        &self,
        f: &'a mut fmt::Formatter<'b>,
        name: &str,
    ) -> fmt::DebugStruct<'a, 'b> {
        let mut shown = f.debug_struct(name);
        shown
            .field("key_prefix", &self.key_prefix)
            .field("lease", &self.lease)
            .field("connect_timeout", &self.connect_timeout);
        shown
    }
}

impl Common {
    /// Returns how long a request may take that must not take longer than a part of a lease.
    pub(crate) fn patience(&self, lease: Duration) -> Duration {
        self.response_timeout.min(lease / 4)
    }
}

/// Refuses a timeout of zero.
pub(crate) fn check_timeouts(timeouts: &[Duration]) -> Result<(), LockError> {
    match timeouts.iter().any(Duration::is_zero) {
        true => Err(invalid("expected timeouts above zero")),
        false => Ok(()),
    }
}

/// Returns the lease that was set, or else the default.
///
/// # Errors
///
/// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if the lease is shorter or longer than the
/// library can keep.
pub(crate) fn lease(set: Option<Duration>) -> Result<Duration, LockError> {
    let lease = set.unwrap_or(DEFAULT_LEASE);
    if !LEASES.contains(&lease) {
        return Err(invalid(format!(
            "expected a lease of 100 ms to 24 h, got {lease:?}"
        )));
    }
    Ok(lease)
}

pub(crate) fn default_connect_timeout(lease: Duration) -> Duration {
    (lease / 3).clamp(
        SHORTEST_DEFAULT_CONNECT_TIMEOUT,
        LONGEST_DEFAULT_CONNECT_TIMEOUT,
    )
}

/// How a peer that is gone without a word is noticed before the next renewal is due.
pub(crate) struct DeadPeers {
    /// For how long what was sent may stay unconfirmed.
    pub(crate) patience: Duration,
    /// How long a connection is quiet before it is probed, and the probes are apart.
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    pub(crate) probes: u32,
}

impl DeadPeers {
    pub(crate) fn noticed_within(lease: Duration) -> Self {
        // Systems count whole seconds.
        const SHORTEST: Duration = Duration::from_secs(1);
        let patience = (lease / 4).min(Duration::from_secs(10));
        Self {
            patience,
            idle: (patience / 2).max(SHORTEST),
            interval: (patience / 4).max(SHORTEST),
            probes: 2,
        }
    }
}

/// Makes the setters of a builder for its field `common`, under the docs that are given for each.
macro_rules! common_setters {
    ($($(#[$docs:meta])* $setter:ident;)+) => {
        $($crate::providers::kit::settings::common_setters!(@ $setter $(#[$docs])*);)+
    };
    (@ key_prefix $($docs:tt)*) => {
        $($docs)*
        pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
            self.common.key_prefix = Some(prefix.into());
            self
        }
    };
    (@ lease $($docs:tt)*) => {
        $($docs)*
        pub fn lease(mut self, lease: Duration) -> Self {
            self.common.lease = Some(lease);
            self
        }
    };
    (@ connect_timeout $($docs:tt)*) => {
        $($docs)*
        pub fn connect_timeout(mut self, timeout: Duration) -> Self {
            self.common.connect_timeout = Some(timeout);
            self
        }
    };
    (@ response_timeout $($docs:tt)*) => {
        $($docs)*
        pub fn response_timeout(mut self, timeout: Duration) -> Self {
            self.common.response_timeout = Some(timeout);
            self
        }
    };
    (@ username $($docs:tt)*) => {
        $($docs)*
        pub fn username(mut self, username: impl Into<String>) -> Self {
            self.common.username = Some(username.into());
            self
        }
    };
    (@ password $($docs:tt)*) => {
        $($docs)*
        pub fn password(mut self, password: impl Into<String>) -> Self {
            self.common.password = Some(password.into());
            self
        }
    };
    (@ root_certificates $($docs:tt)*) => {
        $($docs)*
        pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
            self.common.root_certificates = Some(pem.into());
            self
        }
    };
    (@ client_certificate $($docs:tt)*) => {
        $($docs)*
        pub fn client_certificate(
            mut self,
            certificate_pem: impl Into<Vec<u8>>,
            key_pem: impl Into<Vec<u8>>,
        ) -> Self {
            self.common.client_certificate = Some($crate::providers::kit::tls::Identity {
                certificate: certificate_pem.into(),
                key: key_pem.into(),
            });
            self
        }
    };
}
pub(crate) use common_setters;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_builder_has_set_wins_over_a_parameter() {
        let mut options = CommonOptions {
            lease: Some(Duration::from_secs(9)),
            ..CommonOptions::default()
        };
        for (key, value) in [
            ("lease", "5s"),
            ("connect_timeout", "2s"),
            ("key_prefix", "a"),
        ] {
            assert!(options.read(key, value).unwrap(), "{key}");
        }
        assert!(!options.read("acl", "open").unwrap());
        assert!(options.read("lease", "soon").is_err());
        let common = options.finish(|lease, connect| lease.min(connect)).unwrap();
        assert_eq!(common.lease, Duration::from_secs(9));
        assert_eq!(common.response_timeout, Duration::from_secs(2));
        assert_eq!(common.key_prefix, "a");
        assert_eq!(
            common.patience(common.lease / 9),
            Duration::from_millis(250)
        );
    }

    #[test]
    fn what_nobody_can_keep_is_refused() {
        let error = |options: CommonOptions| {
            let finished = options.finish(|_, _| Duration::from_secs(1));
            finished
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        let lease = |lease| CommonOptions {
            lease: Some(lease),
            ..CommonOptions::default()
        };
        assert!(error(lease(Duration::from_millis(99))).contains("a lease of 100 ms to 24 h"));
        assert!(error(lease(*LEASES.end() + Duration::from_secs(1))).contains("a lease of"));
        assert_eq!(error(lease(*LEASES.start())), "");
        let no_time = CommonOptions {
            connect_timeout: Some(Duration::ZERO),
            ..CommonOptions::default()
        };
        assert!(error(no_time).contains("timeouts above zero"));
    }
}
