//! A server that speaks no TLS where TLS was asked for. It takes the handshake for the beginning of
//! a command and waits for the rest, and would be given up without a word about the reason.

use std::io;
use std::time::Duration;

use redis::ConnectionAddr;
use tokio::net::TcpStream;

use crate::LockError;
use crate::future::{First, select};
use crate::providers::kit::error::invalid;

/// A handshake takes no longer than this where all is well and near. After that the server is
/// asked.
const PATIENCE: Duration = Duration::from_millis(300);

/// Waits for the outcome of connecting; or, with TLS, finds that the server answers without.
pub(super) async fn unless_plain<T>(
    address: &ConnectionAddr,
    connecting: impl Future<Output = Result<T, LockError>>,
) -> Result<T, LockError> {
    let ConnectionAddr::TcpTls { host, port, .. } = address else {
        return connecting.await;
    };
    let asking = async {
        tokio::time::sleep(PATIENCE).await;
        if !matches!(answers(host, *port).await, Ok(true)) {
            // It is something else that takes so long.
            std::future::pending::<()>().await;
        }
    };
    match select(connecting, asking).await {
        First::Left(outcome) => outcome,
        First::Right(()) => Err(invalid(
            "the server speaks no TLS on this port: expected its port for TLS, or `redis:` in \
             place of `rediss:`",
        )),
    }
}

/// Says whether a `PING` without TLS, and without anything secret, is answered as Redis answers.
async fn answers(host: &str, port: u16) -> io::Result<bool> {
    const PING: &[u8] = b"PING\r\n";
    let stream = TcpStream::connect((host, port)).await?;
    stream.writable().await?;
    // A fresh connection has room for so little.
    stream.try_write(PING)?;
    let mut first = [0];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut first) {
            Ok(length) => return Ok(length == 1 && matches!(first[0], b'+' | b'-')),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
