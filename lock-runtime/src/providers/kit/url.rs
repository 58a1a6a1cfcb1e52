//! The parts of a URL that are the library's own, whichever server it names.

use std::borrow::Cow;
use std::time::Duration;

use super::error::invalid;
use crate::LockError;

/// Splits off the query, which is ours: returns the URL without it, and the query.
///
/// # Errors
///
/// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if the URL has a fragment. A `#` is more
/// likely a part of a password, and what comes before it would be taken for the host and be shown.
pub(crate) fn split(url: &str) -> Result<(String, String), LockError> {
    if url.contains('#') {
        return Err(invalid(
            "expected no fragment in the URL: a `#` that belongs to it is written as `%23`",
        ));
    }
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    Ok((address.to_owned(), query.to_owned()))
}

/// The parts of `scheme://user:password@host,host/path`, as they stand there.
pub(crate) struct Authority<'a> {
    pub(crate) credentials: Option<&'a str>,
    pub(crate) hosts: &'a str,
    /// Begins with `/`, or is empty.
    pub(crate) path: &'a str,
}

impl<'a> Authority<'a> {
    /// Finds the parts of a URL without its query; `None` if no `://` is in it.
    pub(crate) fn of(address: &'a str) -> Option<Self> {
        let (_, rest) = address.split_once("://")?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        Some(Self {
            credentials,
            hosts,
            path,
        })
    }
}

/// Decodes percent sequences.
#[cfg(any(feature = "redis", feature = "zookeeper"))]
pub(crate) fn decoded(text: &str) -> String {
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

type Parameters<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Reads the names and values in a query.
///
/// # Errors
///
/// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if a parameter is given twice.
pub(crate) fn parameters(query: &str) -> Result<Parameters<'_>, LockError> {
    let mut parameters = Parameters::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if parameters.iter().any(|(other, _)| *other == name) {
            return Err(invalid(format!(
                "the URL parameter `{name}` is given twice"
            )));
        }
        parameters.push((name, value));
    }
    Ok(parameters)
}

pub(crate) const UNESCAPED: &str = "wrong URL; a `?`, `#`, `/` or `@` in a user name or password \
                                    is written as `%3F`, `%23`, `%2F` or `%40`";

/// Hides what is wrong with a query where that may be a part of a password, and would be repeated.
pub(crate) fn without_secrets<T>(query: &str, read: Result<T, LockError>) -> Result<T, LockError> {
    match read {
        Err(_) if query.contains('@') => Err(invalid(UNESCAPED)),
        read => read,
    }
}

/// Sets a duration of the URL, unless the builder has set it.
pub(crate) fn set_duration(
    slot: &mut Option<Duration>,
    key: &str,
    text: &str,
) -> Result<(), LockError> {
    let duration = duration_of(key, text).map_err(invalid)?;
    slot.get_or_insert(duration);
    Ok(())
}

/// Reads the duration of a parameter or setting, or says what was expected.
pub(crate) fn duration_of(key: &str, text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| {
        format!("expected a duration such as `30s`, `1m30s` or `500ms` for `{key}`, got `{text}`")
    })
}

/// Reads one or more pairs of a number and a unit, `ms s m h d`, as the attribute writes them.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(Duration::from_millis(number.checked_mul(unit)?))?;
    }
    (!text.is_empty()).then_some(total)
}

/// Makes the error of a parameter that is none of the known ones, and names the one that may be
/// meant.
pub(crate) fn unknown_parameter(unknown: &str, known: &[&str]) -> LockError {
    invalid(unknown_of("URL parameter", unknown, known))
}

/// Says that something of this kind is none of the known ones, and names the one that may be meant.
pub(crate) fn unknown_of(kind: &str, unknown: &str, known: &[&str]) -> String {
    let nearest = known.iter().min_by_key(|known| distance(unknown, known));
    let nearest = nearest.filter(|known| distance(unknown, known) <= 1 + unknown.len() / 4);
    let meant = match nearest {
        Some(nearest) => format!(", did you mean `{nearest}`? expected"),
        None => "; expected".to_owned(),
    };
    let known = known.join("`, `");
    format!("unknown {kind} `{unknown}`{meant} `{known}`")
}

/// Counts the bytes that must be inserted, removed or replaced to make the one text of the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, byte) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], done + 1);
        for (at, other) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_pairs_of_numbers_and_units() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        for wrong in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "5 s",
            "5y",
            "1s2",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        assert_eq!(parse_duration(&format!("{}d", u64::MAX)), None);
    }

    #[test]
    fn a_query_is_split_off_and_read() {
        let (address, query) = split("redis://h:1/2?lease=5s&key_prefix=a%26b").unwrap();
        assert_eq!(address, "redis://h:1/2");
        let read = parameters(&query).unwrap();
        let expected = [("lease", "5s"), ("key_prefix", "a&b")];
        assert!(
            read.iter()
                .map(|(name, value)| (&**name, &**value))
                .eq(expected)
        );
        let bare = split("redis://h").unwrap();
        assert_eq!(bare, ("redis://h".to_owned(), String::new()));
    }

    #[test]
    fn the_parts_of_an_address_are_found() {
        let parts = |address| Authority::of(address).map(|it| (it.credentials, it.hosts, it.path));
        let all = parts("redis://u:p@q@a:1,b/0/@");
        assert_eq!(all, Some((Some("u:p@q"), "a:1,b", "/0/@")));
        assert_eq!(parts("redis://a"), Some((None, "a", "")));
        assert_eq!(parts("redis:a"), None);
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let fragment = split("redis://u:12#3@h").unwrap_err().to_string();
        assert!(
            fragment.contains("%23") && !fragment.contains("12"),
            "{fragment}"
        );
        let twice = parameters("lease=5s&lease=6s").unwrap_err().to_string();
        assert!(twice.contains("`lease` is given twice"), "{twice}");
    }

    #[test]
    fn an_unknown_parameter_is_told_with_the_one_that_is_meant() {
        let known = ["key_prefix", "lease", "connect_timeout"];
        let text = |unknown| unknown_parameter(unknown, &known).to_string();
        assert_eq!(
            text("leese"),
            "invalid configuration: unknown URL parameter `leese`, did you mean `lease`? \
             expected `key_prefix`, `lease`, `connect_timeout`"
        );
        assert!(text("conect_timeout").contains("did you mean `connect_timeout`?"));
        assert!(text("ssl").starts_with("invalid configuration: unknown URL parameter `ssl`; "));
    }
}
