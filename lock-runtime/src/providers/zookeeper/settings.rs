//! What the provider goes by; all checked.

use std::time::Duration;

use zookeeper_client::{Acl, Acls};

use crate::providers::kit::settings::Common;

pub(super) struct Settings {
    pub(super) common: Common,
    /// `host:port`, separated by commas.
    pub(super) hosts: String,
    pub(super) directory: String,
    /// How long a connection may be silent.
    pub(super) silence: Duration,
    pub(super) acls: Vec<Acl>,
    /// `user:password`, if there are any.
    pub(super) credentials: Option<String>,
    #[cfg(feature = "zookeeper-tls")]
    pub(super) tls: Option<zookeeper_client::TlsOptions>,
}

impl Settings {
    pub(super) fn acls(&self) -> Acls<'_> {
        Acls::new(&self.acls)
    }
}
