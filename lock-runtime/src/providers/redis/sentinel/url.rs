//! URLs of sentinels: `redis-sentinel://user:password@host,host/database?service=name`, and
//! `redis+sentinel://user:password@host,host/name/database`.

use super::super::address::{HostPort, has_empty_password};
use crate::LockError;
use crate::providers::kit::error::invalid;
use crate::providers::kit::url::{Authority, UNESCAPED, decoded};

const PORT: u16 = 26_379;
const FORMS: &str = "redis-sentinel://user:password@host:26379,host:26379/0?service=name or \
                     redis+sentinel://user:password@host:26379,host:26379/name/0";

/// What a URL of sentinels says, but for its query.
pub(crate) struct SentinelUrl {
    pub(crate) hosts: Vec<HostPort>,
    /// The name of the service, in the form that has it in the path.
    pub(crate) service: Option<String>,
    pub(crate) database: i64,
    pub(crate) tls: bool,
    /// Of the servers, not the sentinels.
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

/// Says whether a URL without its query names sentinels.
pub(crate) fn is_of_sentinels(address: &str) -> bool {
    scheme(address).is_some()
}

/// Returns whether the scheme asks for TLS, and whether the service stands in the path.
fn scheme(address: &str) -> Option<(bool, bool)> {
    let scheme = address.split(':').next()?.to_ascii_lowercase();
    let (name, in_path) = match scheme.strip_suffix("-sentinel") {
        Some(name) => (name, false),
        None => (scheme.strip_suffix("+sentinel")?, true),
    };
    match name {
        "redis" | "valkey" => Some((false, in_path)),
        "rediss" | "valkeys" => Some((true, in_path)),
        _ => None,
    }
}

impl SentinelUrl {
    /// Finds the parts. No error shows a part of the URL.
    pub(crate) fn parse(address: &str) -> Result<Self, LockError> {
        let expected = |what: &str| invalid(format!("expected a URL like {FORMS}: {what}"));
        let (tls, in_path) = scheme(address).ok_or_else(|| expected("another scheme"))?;
        let parts = Authority::of(address).ok_or_else(|| expected("`//` is missing"))?;
        // What looks like the hosts and the path may be a password with a bare `/`.
        if parts.path.contains('@') {
            return Err(invalid(UNESCAPED));
        }
        let hosts = hosts(parts.hosts.split(',')).map_err(|wrong| expected(wrong.words()))?;
        let mut path = parts
            .path
            .split('/')
            .skip(1)
            .filter(|part| !part.is_empty());
        let service = in_path.then(|| path.next().map(decoded)).flatten();
        if in_path && service.is_none() {
            return Err(expected("the name of the service is missing"));
        }
        let database = match path.next().unwrap_or("0").parse() {
            Ok(number) if path.next().is_none() => number,
            _ => return Err(expected("the database is no number")),
        };
        let (username, password) = credentials(&parts, address);
        Ok(Self {
            hosts,
            service,
            database,
            tls,
            username,
            password,
        })
    }
}

/// One sentinel, as the builder takes it: `host:port`, or a URL with credentials of the sentinel.
pub(crate) struct OneSentinel {
    pub(crate) host: HostPort,
    pub(crate) tls: bool,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl OneSentinel {
    /// Finds the parts. No error shows a part of the URL.
    pub(crate) fn parse(url: &str) -> Result<Self, LockError> {
        let expected = || {
            invalid(
                "expected a sentinel like `host:26379`, or `redis://user:password@host:26379`, or \
                 `rediss:` for TLS; other settings are those of the builder",
            )
        };
        let (tls, url) = match url.split_once("://") {
            None => (false, format!("redis://{url}")),
            Some((scheme, _)) => match scheme.to_ascii_lowercase().as_str() {
                "redis" | "valkey" => (false, url.to_owned()),
                "rediss" | "valkeys" => (true, url.to_owned()),
                _ => return Err(expected()),
            },
        };
        let parts = Authority::of(&url).ok_or_else(expected)?;
        if parts.path.contains('@') {
            return Err(invalid(UNESCAPED));
        }
        if !matches!(parts.path, "" | "/") || url.contains(['?', '#']) {
            return Err(expected());
        }
        let host = HostPort::parse(parts.hosts, PORT).ok_or_else(expected)?;
        let (username, password) = credentials(&parts, &url);
        Ok(Self {
            host,
            tls,
            username,
            password,
        })
    }
}

/// Why hosts are not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WrongHosts {
    Unreadable,
    Repeated,
}

impl WrongHosts {
    fn words(self) -> &'static str {
        match self {
            Self::Unreadable => {
                "a host or port is missing or wrong; an IPv6 address stands in brackets"
            }
            Self::Repeated => "a sentinel is named twice",
        }
    }
}

fn hosts<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<HostPort>, WrongHosts> {
    let mut hosts = Vec::new();
    for text in texts {
        let host = HostPort::parse(text, PORT).ok_or(WrongHosts::Unreadable)?;
        if hosts.contains(&host) {
            return Err(WrongHosts::Repeated);
        }
        hosts.push(host);
    }
    Ok(hosts)
}

/// Returns the user name and the password. An empty one is a password too.
fn credentials(parts: &Authority<'_>, address: &str) -> (Option<String>, Option<String>) {
    let Some(credentials) = parts.credentials else {
        return (None, None);
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let some = |text: &str| (!text.is_empty()).then(|| decoded(text));
    let mut password = some(password);
    if has_empty_password(address) {
        password.get_or_insert_default();
    }
    (some(user), password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(hosts: &[HostPort]) -> String {
        let hosts: Vec<_> = hosts.iter().map(HostPort::to_string).collect();
        hosts.join(" ")
    }

    #[test]
    fn both_forms_say_the_same() {
        for (url, service, database, tls) in [
            ("redis-sentinel://us%40er:p%2Fw+@A,[::1]:7", None, 0, false),
            (
                "Valkey-Sentinel://us%40er:p%2Fw+@a,[::1]:7/",
                None,
                0,
                false,
            ),
            (
                "rediss-sentinel://us%40er:p%2Fw+@a,[::1]:7/3",
                None,
                3,
                true,
            ),
            (
                "redis+sentinel://us%40er:p%2Fw+@a,[::1]:7/my%20primary",
                Some("my primary"),
                0,
                false,
            ),
            (
                "VALKEYS+SENTINEL://us%40er:p%2Fw+@a,[::1]:7/primary/12",
                Some("primary"),
                12,
                true,
            ),
        ] {
            assert!(is_of_sentinels(url));
            let read = SentinelUrl::parse(url).expect(url);
            assert_eq!(text(&read.hosts), "a:26379 [::1]:7", "{url}");
            assert_eq!(read.service.as_deref(), service, "{url}");
            assert_eq!((read.database, read.tls), (database, tls), "{url}");
            assert_eq!(read.username.as_deref(), Some("us@er"), "{url}");
            assert_eq!(read.password.as_deref(), Some("p/w+"), "{url}");
        }
        for other in ["redis://a", "redis-cluster://a", "sentinel://a", "rediss:"] {
            assert!(!is_of_sentinels(other), "{other}");
        }
    }

    #[test]
    fn credentials_may_be_left_out_or_empty() {
        let credentials = |url| {
            let read = SentinelUrl::parse(url).expect(url);
            (read.username, read.password)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(credentials("redis-sentinel://a"), (None, None));
        assert_eq!(credentials("redis-sentinel://:pw@a"), (None, some("pw")));
        assert_eq!(credentials("redis-sentinel://u:@a"), (some("u"), some("")));
        assert_eq!(credentials("redis-sentinel://u@a"), (some("u"), None));
    }

    #[test]
    fn mistakes_are_said_and_not_shown() {
        for (url, expected) in [
            ("redis-sentinel:a", "`//` is missing"),
            ("redis-sentinel://", "a host or port"),
            ("redis-sentinel://a,,b", "a host or port"),
            ("redis-sentinel://a,b:secret", "a host or port"),
            ("redis-sentinel://::1:26379", "in brackets"),
            ("redis-sentinel://a:1,b,A:1", "named twice"),
            ("redis-sentinel://a,b,a:26379", "named twice"),
            ("redis-sentinel://a/secret", "no number"),
            ("redis-sentinel://a/0/secret", "no number"),
            ("redis-sentinel://u:1/secret@a", "written as"),
            ("redis+sentinel://a", "name of the service"),
            ("redis+sentinel://a//", "name of the service"),
            ("redis+sentinel://a/secret/secret", "no number"),
        ] {
            let error = SentinelUrl::parse(url).err().expect(url).to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn one_sentinel_may_have_credentials() {
        let read = OneSentinel::parse("rediss://u:p%40w@[::1]/").expect("a sentinel");
        assert_eq!(read.host.to_string(), "[::1]:26379");
        assert!(read.tls);
        assert_eq!(read.username.as_deref(), Some("u"));
        assert_eq!(read.password.as_deref(), Some("p@w"));
        let read = OneSentinel::parse("a:1").expect("a sentinel");
        assert_eq!((read.host.to_string().as_str(), read.tls), ("a:1", false));
        for wrong in [
            "",
            "a,b",
            "redis-sentinel://secret",
            "redis://secret/0",
            "redis://secret?lease=1s",
            "redis://u:1/secret@a",
            "unix:///secret",
        ] {
            let error = OneSentinel::parse(wrong).err().expect(wrong).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
