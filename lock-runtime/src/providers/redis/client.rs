//! How to connect to one server: its address, credentials, TCP settings and TLS.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::address::{HostPort, plain};
use crate::LockError;
use crate::providers::kit::error::invalid;
use crate::providers::kit::settings::{CommonOptions, DeadPeers};
use crate::providers::kit::tls::{choose_crypto_provider, client_config};

/// Certificates are for TLS.
const NO_TLS: &str = "certificates need a URL that begins with rediss:";

/// A server, and all that is needed to connect to it.
#[derive(Clone)]
pub(super) struct Server {
    /// The client that makes connections: it has the server's address and the credentials.
    client: Client,
    /// How to speak TLS with it; `None` without TLS, or where the client alone knows its
    /// certificates.
    tls: Option<TlsConnector>,
    /// The name that its certificate is to have, if that is not the host's.
    name: Option<String>,
    /// The address under which sentinels know it.
    announced: Option<HostPort>,
}

impl Server {
    /// Makes one from the server's address, and what is set besides.
    pub(super) fn new(
        info: ConnectionInfo,
        options: &CommonOptions,
        lease: Duration,
    ) -> Result<Self, LockError> {
        let mut server = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        if server.lib_name().is_none() && !server.skip_set_lib_name() {
            server = server.set_lib_name("lock-runtime", env!("CARGO_PKG_VERSION"));
        }
        if let Some(username) = &options.username {
            server = server.set_username(username);
        }
        if let Some(password) = &options.password {
            server = server.set_password(password);
        }
        if server.username().is_some() && server.password().is_none() {
            // The client would connect as the default user.
            return Err(invalid(
                "expected a password for the user name; an empty one is written as in \
                 `redis://user:@host`, or set by `password(\"\")`",
            ));
        }
        let tls = tls(info.addr(), options)?;
        let info = info
            .set_redis_settings(server)
            .set_tcp_settings(tcp_settings(lease));
        Ok(Self {
            client: open(info)?,
            tls,
            name: None,
            announced: None,
        })
    }

    /// Makes one that is connected to as this client says, and in no other way.
    #[cfg(test)]
    pub(super) fn of(client: Client) -> Self {
        Self {
            client,
            tls: None,
            name: None,
            announced: None,
        }
    }

    /// Checks the server's certificate for this name, whatever the host is called.
    ///
    /// # Errors
    ///
    /// If there is no certificate to check, or if this is no name.
    pub(super) fn verified_as(mut self, name: Option<String>) -> Result<Self, LockError> {
        if let Some(name) = &name {
            if self.tls.is_none() {
                return Err(invalid(
                    "`server_name` needs TLS, as with a URL that begins with `rediss`",
                ));
            }
            ServerName::try_from(name.as_str())
                .map_err(|_| invalid("expected a host name or an address for `server_name`"))?;
        }
        self.name = name;
        Ok(self)
    }

    /// Returns another server, to be connected to in the same way. Sentinels know it as
    /// `announced`.
    pub(super) fn at(&self, host: &HostPort, announced: HostPort) -> Result<Self, LockError> {
        let address = host.address(self.uses_tls());
        let info = self.client.get_connection_info().clone().set_addr(address);
        Ok(Self {
            client: open(info)?,
            tls: self.tls.clone(),
            name: self.name.clone(),
            announced: Some(announced),
        })
    }

    pub(super) fn address(&self) -> &ConnectionAddr {
        self.client.get_connection_info().addr()
    }

    pub(super) fn announced(&self) -> Option<&HostPort> {
        self.announced.as_ref()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn tls(&self) -> Option<&TlsConnector> {
        self.tls.as_ref()
    }

    /// Returns the name that its certificate is to have.
    pub(super) fn name<'a>(&'a self, host: &'a str) -> &'a str {
        self.name.as_deref().unwrap_or(host)
    }

    pub(super) fn settings(&self) -> &RedisConnectionInfo {
        self.client.get_connection_info().redis_settings()
    }

    fn uses_tls(&self) -> bool {
        matches!(self.address(), ConnectionAddr::TcpTls { .. })
    }

    /// Says whether the server is connected to by TCP without TLS.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.address(), ConnectionAddr::Tcp(..))
    }
}

fn open(info: ConnectionInfo) -> Result<Client, LockError> {
    Client::open(info).map_err(|error| invalid(plain(&error)))
}

/// Returns what is needed for TLS with a server, if it is wanted.
fn tls(
    address: &ConnectionAddr,
    options: &CommonOptions,
) -> Result<Option<TlsConnector>, LockError> {
    let roots = options.root_certificates.as_deref();
    let identity = options.client_certificate.as_ref();
    let is_set = roots.is_some() || identity.is_some();
    match address {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => {
            choose_crypto_provider();
            // What a user's client knows of certificates, or is told to overlook, it keeps to
            // itself.
            if *insecure || (tls_params.is_some() && !is_set) {
                return Ok(None);
            }
            Ok(Some(client_config(roots, identity)?.into()))
        }
        _ if is_set => Err(invalid(NO_TLS)),
        _ => Ok(None),
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
    use crate::limits::LEASES;
    use crate::providers::kit::settings::DEFAULT_LEASE;

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
