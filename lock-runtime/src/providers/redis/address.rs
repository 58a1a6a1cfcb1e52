//! Which server a URL names.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::LockError;
use crate::providers::kit::error::{invalid, unsupported};
use crate::providers::kit::scheme::not_supported;
use crate::providers::kit::url::Authority;

/// The schemes whose URL holds a path in place of a host and a database.
const SOCKETS: [&str; 3] = ["unix", "redis+unix", "valkey+unix"];

/// A host, by its name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Makes one of a host, whose letters are no matter, and a port.
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_ascii_lowercase(),
            port,
        }
    }

    /// Reads `host`, `host:port`, `[address]` or `[address]:port`.
    pub(super) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                match port {
                    "" => (host, None),
                    port => (host, Some(port.strip_prefix(':')?)),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
            None => default_port,
        };
        let is_host =
            !host.is_empty() && !host.contains(|it: char| it == ',' || it.is_whitespace());
        is_host.then(|| Self::new(host, port))
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address as the client has it.
    pub(super) fn address(&self, tls: bool) -> ConnectionAddr {
        let (host, port) = (self.host.clone(), self.port);
        match tls {
            false => ConnectionAddr::Tcp(host, port),
            true => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Says whether a URL without its query names a Unix socket.
pub(super) fn is_socket(address: &str) -> bool {
    let scheme = address.split(':').next().unwrap_or_default();
    SOCKETS.iter().any(|it| it.eq_ignore_ascii_case(scheme))
}

/// Refuses what names no single server.
pub(super) fn check(address: &str) -> Result<(), LockError> {
    let scheme = address.split(':').next().unwrap_or_default();
    match not_supported(scheme) {
        Some(error) => Err(error),
        None if !is_socket(address) && names_several(address) => Err(several()),
        None => Ok(()),
    }
}

/// Reads which server a URL names. The URL is without its query, which is the library's own.
pub(super) fn read(address: &str) -> Result<ConnectionInfo, LockError> {
    let socket = is_socket(address);
    // What looks like a path may be a password: it would be shown as the server.
    if socket && address.contains('@') {
        return Err(invalid(
            "expected a URL like unix:///run/redis.sock?db=0&user=name&pass=word; an `@` in the \
             path is written as `%40`",
        ));
    }
    address.into_connection_info().map_err(|error| {
        // The client's error names the mistake and never the URL.
        let why = error.detail().map(str::to_owned);
        let why = why.unwrap_or_else(|| plain(&error));
        let expected = match socket {
            true => "unix:///run/redis.sock",
            false => "redis://user:password@host:6379/0 or rediss://…",
        };
        invalid(format!("expected a URL like {expected}: {why}"))
    })
}

/// Returns the URL that names the sentinel at this address.
pub(super) fn as_sentinel(address: &ConnectionAddr) -> String {
    let (scheme, host) = match address {
        ConnectionAddr::Tcp(host, port) => ("redis", HostPort::new(host, *port).to_string()),
        ConnectionAddr::TcpTls { host, port, .. } => {
            ("rediss", HostPort::new(host, *port).to_string())
        }
        // Nothing but TCP leads to sentinels.
        _ => ("redis", "host:26379".to_owned()),
    };
    format!("{scheme}-sentinel://{host}?service=name")
}

fn several() -> LockError {
    unsupported(
        "several servers in one URL are not supported: expected the one that is the primary, such \
         as redis://host:6379; for sentinels, redis-sentinel://host:26379,host?service=name",
    )
}

/// Says whether the URL has `host:port,host:port`. A comma in a user name or password is none.
fn names_several(address: &str) -> bool {
    Authority::of(address).is_some_and(|parts| parts.hosts.contains(','))
}

/// Says whether a URL has `user:@host`.
pub(super) fn has_empty_password(address: &str) -> bool {
    Authority::of(address)
        .and_then(|parts| parts.credentials)
        .is_some_and(|user| user.len() > 1 && user.find(':') == Some(user.len() - 1))
}

/// Returns the words of an error that the client itself made.
pub(super) fn plain(error: &redis::RedisError) -> String {
    let text = error.to_string();
    text.split(" - ").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_port_and_brackets_where_they_need_some() {
        for (text, expected) in [
            ("a", Some("a:26379")),
            ("A.b:1", Some("a.b:1")),
            ("10.0.0.1:65535", Some("10.0.0.1:65535")),
            ("[::1]", Some("[::1]:26379")),
            ("[FE80::1]:7", Some("[fe80::1]:7")),
            ("", None),
            ("a:", None),
            (":1", None),
            ("a:0", None),
            ("a:65536", None),
            ("a:b", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[a]:1", None),
            ("a b:1", None),
        ] {
            let read = HostPort::parse(text, 26_379).map(|it| it.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_sentinel_has_a_url() {
        let url = |host: &str, tls| as_sentinel(&HostPort::new(host, 7).address(tls));
        assert_eq!(url("a", false), "redis-sentinel://a:7?service=name");
        assert_eq!(url("::1", true), "rediss-sentinel://[::1]:7?service=name");
        let socket = as_sentinel(&ConnectionAddr::Unix("/redis.sock".into()));
        assert_eq!(socket, "redis-sentinel://host:26379?service=name");
    }

    #[test]
    fn an_empty_password_is_one() {
        for (address, expected) in [
            ("redis://user:@host", true),
            ("redis://user:@host:6379/0", true),
            ("redis://user@host", false),
            ("redis://:@host", false),
            ("redis://user:a:@host", false),
            ("redis://host/:@", false),
            ("redis://host", false),
        ] {
            assert_eq!(has_empty_password(address), expected, "{address}");
        }
    }

    #[test]
    fn several_servers_are_told_from_a_comma_in_a_password() {
        for (address, expected) in [
            ("redis://a:1,b:2", true),
            ("redis://a,b/0", true),
            ("rediss://u:p@a:1,b:2,c:3/0", true),
            ("redis://u:p,q@a:1", false),
            ("redis://a:1/0,1", false),
        ] {
            assert_eq!(names_several(address), expected, "{address}");
        }
    }
}
