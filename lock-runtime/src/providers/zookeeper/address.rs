//! The URL: `zookeeper://user:password@host:port,host:port/directory?parameters`.

use crate::LockError;
use crate::providers::kit::error::invalid;
use crate::providers::kit::url::{Authority, UNESCAPED, decoded, split};

pub(super) const DEFAULT_PORT: u16 = 2181;

/// The parts of a URL; the parameters are not looked at yet.
pub(super) struct Address {
    pub(super) hosts: String,
    pub(super) directory: String,
    pub(super) credentials: Option<(String, String)>,
    pub(super) parameters: String,
}

impl Address {
    /// Finds the parts. No error shows more of the URL than its parameters.
    pub(super) fn parse(url: &str) -> Result<Self, LockError> {
        let (address, parameters) = split(url)?;
        let expected = |what: &str| {
            invalid(format!(
                "expected a URL like zookeeper://user:password@host:2181,host/directory: {what}"
            ))
        };
        let parts = address
            .get(.."zookeeper://".len())
            .filter(|start| start.eq_ignore_ascii_case("zookeeper://"))
            .and_then(|_| Authority::of(&address))
            .ok_or_else(|| expected("it does not begin with zookeeper://"))?;
        let directory = match parts.path {
            "" => "/",
            path => path,
        };
        // What looks like the hosts and the directory may be a password with a bare `/`.
        if directory.contains('@') {
            return Err(invalid(UNESCAPED));
        }
        for host in parts.hosts.split(',') {
            if !is_host(host) {
                return Err(expected("a host or port is missing or wrong"));
            }
        }
        let credentials = parts.credentials.map(|text| {
            let (user, password) = text.split_once(':').unwrap_or((text, ""));
            (decoded(user), decoded(password))
        });
        Ok(Self {
            hosts: parts.hosts.to_owned(),
            directory: decoded(directory),
            credentials,
            parameters,
        })
    }
}

/// Says whether this is `host`, `host:port`, `[address]` or `[address]:port`.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) => match port.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    !host.is_empty() && port.is_none_or(is_port)
}

/// Says whether a host that [`is_host`] let pass names its port.
pub(super) fn has_port(host: &str) -> bool {
    match host.rsplit_once(']') {
        Some((_, port)) => !port.is_empty(),
        None => host.contains(':'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_found() {
        let url = "ZooKeeper://us%3Aer:p%40s+s@h1:2181,[::1]:2182,h3/my%20app/locks?lease=5s";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.hosts, "h1:2181,[::1]:2182,h3");
        assert_eq!(address.directory, "/my app/locks");
        let credentials = ("us:er".to_owned(), "p@s+s".to_owned());
        assert_eq!(address.credentials, Some(credentials));
        assert_eq!(address.parameters, "lease=5s");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let address = Address::parse("zookeeper://localhost").unwrap();
        assert_eq!(address.hosts, "localhost");
        assert_eq!(address.directory, "/");
        assert_eq!(address.credentials, None);
    }

    #[test]
    fn mistakes_are_refused() {
        for wrong in [
            "zookeeper:h",
            "zookeeper://",
            "zookeeper:///locks",
            "zookeeper://h,",
            "zookeeper://h:",
            "zookeeper://h:0",
            "zookeeper://h:65536",
            "zookeeper://[::1",
            "zookeeper://[::1]x",
            "zookeeper://h:1:2",
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
