//! Opening a connection: the stream to the server, and the client's connection upon it.
//!
//! The client can do it too. But then it spawns what drives the connection, and no other thread
//! can send.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::SockRef};
use redis::{AsyncConnectionConfig, ConnectionAddr, ErrorKind, RedisResult};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::client::Server;
use super::stream::{OtherSide, Stream};
use crate::future::{BoxFuture, first_ok};

/// How many requests may wait to be written: more than there can be, so that none waits for room.
const BACKLOG: usize = 1 << 24;

/// A connection of the client's, and what drives it.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    pub(super) driver: Driver,
    /// The side of another runtime, which may read.
    pub(super) other_side: Option<OtherSide>,
}

/// What moves the bytes of a connection.
pub(super) enum Driver {
    /// A future; `None` when it has ended.
    Ours(Option<BoxFuture<'static, ()>>),
    /// A task that the client has spawned.
    OfClient,
}

impl Driver {
    /// Moves what can be moved. It is ready when the connection has ended; only a driver of the
    /// client's does not tell.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self::Ours(driver) = self else {
            return Poll::Pending;
        };
        let polled = match driver {
            Some(running) => running.as_mut().poll(context),
            None => Poll::Ready(()),
        };
        if polled.is_ready() {
            // Only when it is dropped do those hear of it who wait for an answer.
            *driver = None;
        }
        polled
    }
}

/// Connects to a server, on the runtime that the connection is to live on. It keeps no
/// time: the client's timers would be those of whichever runtime asks.
pub(super) async fn open(server: &Server, config: AsyncConnectionConfig) -> RedisResult<Opened> {
    let config = config
        .set_response_timeout(None)
        .set_pipeline_buffer_size(BACKLOG);
    let client = server.client();
    let tcp = client.get_connection_info().tcp_settings();
    match (server.address(), server.tls()) {
        (ConnectionAddr::Tcp(host, port), _) => {
            let stream = any_address(host, *port, |address| connect(address, tcp)).await?;
            let other_side = stream.other_side();
            upon(stream, other_side, server, config).await
        }
        (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => {
            let name = ServerName::try_from(server.name(host))?.to_owned();
            let connecting = |address| {
                let name = name.clone();
                async move { tls.connect(name, connect(address, tcp).await?).await }
            };
            let stream = any_address(host, *port, connecting).await?;
            let other_side = stream.get_ref().0.other_side();
            upon(stream, other_side, server, config).await
        }
        #[cfg(unix)]
        (ConnectionAddr::Unix(path), _) => {
            let stream = Stream::new(tokio::net::UnixStream::connect(path).await?);
            let other_side = stream.other_side();
            upon(stream, other_side, server, config).await
        }
        // Only the client knows how.
        _ => {
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            Ok(Opened {
                connection: connecting.await?,
                driver: Driver::OfClient,
                other_side: None,
            })
        }
    }
}

async fn upon(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    other_side: OtherSide,
    server: &Server,
    config: AsyncConnectionConfig,
) -> RedisResult<Opened> {
    let opening = MultiplexedConnection::new_with_config(server.settings(), stream, config);
    let (connection, driver) = opening.await?;
    Ok(Opened {
        connection,
        driver: Driver::Ours(Some(Box::pin(driver))),
        other_side: Some(other_side),
    })
}

/// Connects to whichever address of a host is the first to answer.
async fn any_address<'a, T, F>(
    host: &str,
    port: u16,
    connect: impl Fn(SocketAddr) -> F,
) -> RedisResult<T>
where
    F: Future<Output = io::Result<T>> + Send + 'a,
{
    let addresses = tokio::net::lookup_host((host, port)).await?;
    let attempts = addresses.map(|address| Box::pin(connect(address)) as BoxFuture<'_, _>);
    match first_ok(attempts.collect()).await {
        Some(outcome) => Ok(outcome?),
        None => Err((ErrorKind::InvalidClientConfig, "No address found for host").into()),
    }
}

async fn connect(address: SocketAddr, settings: &TcpSettings) -> io::Result<Stream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(settings.nodelay())?;
    let socket = SockRef::from(&stream);
    if let Some(keepalive) = settings.keepalive() {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(settings.user_timeout())?;
    Ok(Stream::new(stream))
}
