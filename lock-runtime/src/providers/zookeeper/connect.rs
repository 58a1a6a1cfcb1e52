//! Making a session, and why none could be made.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use zookeeper_client::{Client, Connector, Error};

use super::address::{DEFAULT_PORT, has_port};
use super::error::{lock_error, unanswered};
use super::settings::Settings;
use crate::LockError;
use crate::background;
use crate::clock::Timestamp;
use crate::future::join_all;
use crate::provider::BoxFuture;

/// The client doubles its pause after every round over its hosts, and soon sleeps as long as an
/// outage has lasted. Hosts are repeated to make rounds of so many attempts, a second apart at
/// most.
const ROUND: usize = 16;
/// What is said of a host to which TCP connects.
const NO_SESSION: &str = "takes connections, but opens no session: it is overloaded, has as many \
                          connections from this address as its `maxClientCnxns` allows, does not \
                          speak ZooKeeper, or its TLS settings or certificate do not fit";
const HUNG_UP: [ErrorKind; 2] = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];

/// Makes a new session, within the connect timeout from `began` on.
pub(super) async fn connect(settings: &Settings, began: Timestamp) -> Result<Client, LockError> {
    let limit = settings.common.connect_timeout;
    let mut connecting = pin!(try_all_hosts(settings));
    let soon = tokio::time::timeout(limit / 2, connecting.as_mut()).await;
    if let Ok(Ok(client)) = soon {
        return Ok(client);
    }
    // The client keeps the reasons to itself, so they are looked for beside it.
    let left = (began + limit).remaining();
    let why = background::spawn_beside(why_not(settings.hosts.clone(), left * 3 / 4));
    let outcome = match soon {
        Ok(outcome) => Ok(outcome),
        Err(_) => tokio::time::timeout(left, connecting).await,
    };
    let error = match outcome {
        Ok(Ok(client)) => return Ok(client),
        Ok(Err(error)) => lock_error(error),
        Err(_) => unanswered(),
    };
    // What a server has answered needs no other reason.
    match error.is_retryable() {
        true => Err(error.about(why.await.unwrap_or_default())),
        false => Err(error),
    }
}

/// Makes a new session, or fails when every host has been tried.
async fn try_all_hosts(settings: &Settings) -> Result<Client, Error> {
    let hosts = rounds(&settings.hosts);
    let mut connector: Connector = Client::connector()
        .with_session_timeout(settings.common.lease)
        .with_connection_timeout(settings.silence)
        .with_fail_eagerly();
    if let Some(credentials) = &settings.credentials {
        connector = connector.with_auth("digest", credentials.as_bytes());
    }
    #[cfg(feature = "zookeeper-tls")]
    if let Some(tls) = &settings.tls {
        let connector = connector.with_tls(tls.clone());
        return connector.secure_connect(&hosts).await;
    }
    connector.connect(&hosts).await
}

fn rounds(hosts: &str) -> String {
    let count = hosts.split(',').count();
    vec![hosts; ROUND.div_ceil(count)].join(",")
}

/// Says what each host does when somebody connects, as far as that shows in this time.
async fn why_not(hosts: String, limit: Duration) -> String {
    let attempts = hosts.split(',').map(|host| -> BoxFuture<'_, _> {
        Box::pin(async move {
            let address = match has_port(host) {
                true => host.to_owned(),
                false => format!("{host}:{DEFAULT_PORT}"),
            };
            match tokio::time::timeout(limit, TcpStream::connect(&address)).await {
                Ok(Ok(_)) => format!("{address}: {NO_SESSION}"),
                // It hung up as soon as it had taken the connection.
                Ok(Err(error)) if HUNG_UP.contains(&error.kind()) => {
                    format!("{address}: {NO_SESSION} ({error})")
                }
                Ok(Err(error)) => format!("{address}: {error}"),
                Err(_) => format!("{address}: no answer"),
            }
        })
    });
    join_all(attempts.collect()).await.join(", ")
}
