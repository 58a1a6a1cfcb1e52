//! TLS by rustls, for tokio-postgres.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use crate::LockError;
use crate::providers::kit::tls::{Identity, client_config};

/// Makes connections whose server shows a certificate of its host by a trusted authority.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    pub(super) fn new(
        roots: Option<&[u8]>,
        identity: Option<&Identity>,
    ) -> Result<Self, LockError> {
        Ok(Self(client_config(roots, identity)?))
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = TlsToHost;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<TlsToHost, Self::Error> {
        // For a socket of the machine's own there is no name, and no TLS either.
        let name = match host {
            "" => None,
            host => Some(ServerName::try_from(host.to_owned())?),
        };
        Ok(TlsToHost {
            name,
            connector: TlsConnector::from(Arc::clone(&self.0)),
        })
    }
}

pub(super) struct TlsToHost {
    name: Option<ServerName<'static>>,
    connector: TlsConnector,
}

type Handshake = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

impl TlsConnect<Socket> for TlsToHost {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Handshake;

    fn connect(self, socket: Socket) -> Handshake {
        Box::pin(async move {
            let Some(name) = self.name else {
                return Err(io::Error::other("TLS needs a host name"));
            };
            self.connector.connect(name, socket).await.map(Encrypted)
        })
    }
}

/// A stream through TLS.
pub(super) struct Encrypted(tokio_rustls::client::TlsStream<Socket>);

impl TlsStream for Encrypted {
    /// Binds no channel: the certificate is checked, which is what binding makes up for.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
