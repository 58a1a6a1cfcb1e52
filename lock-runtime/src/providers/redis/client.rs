//! The client's own settings: credentials, TCP and TLS.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionAddr, ConnectionInfo, ProtocolVersion};
use tokio_rustls::TlsConnector;

use super::address::plain;
use crate::LockError;
use crate::providers::kit::error::invalid;
use crate::providers::kit::settings::{CommonOptions, DeadPeers};
use crate::providers::kit::tls::{choose_crypto_provider, client_config};

/// Makes the client for a server's address, with what is set besides, and what it needs for TLS.
pub(super) fn client(
    info: ConnectionInfo,
    options: &CommonOptions,
    lease: Duration,
) -> Result<(Client, Option<TlsConnector>), LockError> {
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
    let client = Client::open(info).map_err(|error| invalid(plain(&error)))?;
    Ok((client, tls))
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
        _ if is_set => Err(invalid("certificates need a URL that begins with rediss:")),
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
