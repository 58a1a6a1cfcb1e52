//! The URL: `zookeeper://user:password@host:port,host:port/directory?parameters`.

use std::time::Duration;

use super::config::ZooKeeperAcl;
use crate::LockError;
use crate::providers::invalid;
use crate::providers::url::{UNESCAPED, parameters, set_duration, split, without_secrets};

pub(super) const DEFAULT_PORT: u16 = 2181;

/// The parts of a URL; the parameters are not looked at yet.
pub(super) struct Address {
    pub(super) hosts: String,
    pub(super) directory: String,
    pub(super) credentials: Option<(String, String)>,
    pub(super) parameters: String,
}

/// What the builder or the URL's parameters say.
#[derive(Default)]
pub(super) struct Parameters {
    pub(super) directory: Option<String>,
    pub(super) key_prefix: Option<String>,
    pub(super) lease: Option<Duration>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) acl: Option<ZooKeeperAcl>,
}

impl Address {
    /// No error shows more of the URL than its parameters.
    pub(super) fn parse(url: &str) -> Result<Self, LockError> {
        let (address, parameters) = split(url)?;
        let expected = |what: &str| {
            invalid(format!(
                "expected a URL like zookeeper://user:password@host:2181,host/directory: {what}"
            ))
        };
        let rest = address
            .get(.."zookeeper://".len())
            .filter(|start| start.eq_ignore_ascii_case("zookeeper://"))
            .map(|start| &address[start.len()..])
            .ok_or_else(|| expected("it does not begin with zookeeper://"))?;
        let (authority, directory) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        // What looks like the hosts and the directory may be a password with a bare `/`.
        if directory.contains('@') {
            return Err(invalid(UNESCAPED));
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        for host in hosts.split(',') {
            if !is_host(host) {
                return Err(expected("a host or port is missing or wrong"));
            }
        }
        let credentials = credentials.map(|text| {
            let (user, password) = text.split_once(':').unwrap_or((text, ""));
            (decoded(user), decoded(password))
        });
        Ok(Self {
            hosts: hosts.to_owned(),
            directory: decoded(directory),
            credentials,
            parameters,
        })
    }
}

impl Parameters {
    /// Sets what the builder has not set.
    pub(super) fn fill_from(&mut self, query: &str) -> Result<(), LockError> {
        without_secrets(query, self.read(query))
    }

    fn read(&mut self, query: &str) -> Result<(), LockError> {
        for (key, value) in parameters(query)? {
            match &*key {
                "key_prefix" => {
                    self.key_prefix.get_or_insert_with(|| value.into_owned());
                }
                "lease" => set_duration(&mut self.lease, &key, &value)?,
                "connect_timeout" => set_duration(&mut self.connect_timeout, &key, &value)?,
                "acl" => {
                    let acl = match &*value {
                        "open" => ZooKeeperAcl::Open,
                        "creator" => ZooKeeperAcl::Creator,
                        _ => return Err(invalid("expected `open` or `creator` for `acl`")),
                    };
                    self.acl.get_or_insert(acl);
                }
                unknown => {
                    return Err(invalid(format!(
                        "unknown URL parameter `{unknown}`; expected `key_prefix`, `lease`, \
                         `connect_timeout` or `acl`"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// `host`, `host:port`, `[address]` or `[address]:port`.
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

/// Whether a host that [`is_host`] let pass names its port.
pub(super) fn has_port(host: &str) -> bool {
    match host.rsplit_once(']') {
        Some((_, port)) => !port.is_empty(),
        None => host.contains(':'),
    }
}

/// Without percent signs.
fn decoded(text: &str) -> String {
    // In a form, which this decodes, a plus sign is a blank.
    let text = text
        .replace('+', "%2B")
        .replace('&', "%26")
        .replace('=', "%3D");
    form_urlencoded::parse(text.as_bytes())
        .map(|(key, _)| key.into_owned())
        .next()
        .unwrap_or_default()
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
        let mut parameters = Parameters::default();
        let error = parameters.fill_from("leas=5s").unwrap_err().to_string();
        for known in ["key_prefix", "lease", "connect_timeout", "acl"] {
            assert!(error.contains(&format!("`{known}`")), "{error}");
        }
        assert!(parameters.fill_from("acl=everybody").is_err());
    }
}
