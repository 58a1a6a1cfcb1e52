//! Opening a connection, and the words for what goes wrong there.

use std::io;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, PushInfo};

use super::client::Server;
use super::error::{lock_error, lock_error_without};
use super::tls_mismatch::unless_plain;
use super::transport::{self, Opened};
use crate::LockError;

/// A server with TLS hangs up on whoever comes without.
const NOT_PLAIN: &str = "it does not answer as Redis does; for a port with TLS, write `rediss:`";

/// Connects to a server. What it sends without being asked goes to `pushed`.
pub(super) async fn open(
    server: &Server,
    pushed: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Result<Opened, LockError> {
    let pushed = move |push| {
        pushed(push);
        Ok::<_, std::convert::Infallible>(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_push_sender(pushed);
    let opening = transport::open(server, config);
    let opening = async {
        opening.await.map_err(|error| {
            let is_dropped = error.is_connection_dropped() && !error.is_connection_refusal();
            let is_dropped = is_dropped || error.kind() == ErrorKind::Parse;
            let error = lock_error_without(server.settings().password(), error);
            match is_dropped && server.is_plain() {
                true => error.about(NOT_PLAIN),
                false => error,
            }
        })
    };
    unless_plain(server.address(), opening).await
}

/// Subscribes to a channel, on a connection that is driven already.
pub(super) async fn subscribe(
    mut connection: MultiplexedConnection,
    channel: &str,
    limit: Duration,
) -> Result<(), LockError> {
    tokio::time::timeout(limit, connection.subscribe(channel))
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        .map_err(lock_error)
}
