//! What the provider goes by; all checked.

use std::time::Duration;

use redis::{Client, ConnectionAddr};
use tokio_rustls::TlsConnector;

use super::token_floor::Tokens;
use crate::providers::kit::settings::Common;

pub(super) struct Settings {
    pub(super) common: Common,
    /// The client that makes connections: it has the server's address and the credentials.
    pub(super) client: Client,
    /// How to speak TLS with it; `None` without TLS, or where the client alone knows its
    /// certificates.
    pub(super) tls: Option<TlsConnector>,
    pub(super) tokens: Tokens,
    /// How long a waiter puts up with a server that is out of reach.
    pub(super) failover_timeout: Duration,
    /// How long after its start the server grants no lock.
    pub(super) restart_delay: Duration,
}

impl Settings {
    pub(super) fn address(&self) -> &ConnectionAddr {
        self.client.get_connection_info().addr()
    }

    /// Says whether the server is connected to by TCP without TLS.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.address(), ConnectionAddr::Tcp(..))
    }
}
