//! The parts of a URL that are the library's own, whichever server it names.

use std::time::Duration;

use crate::LockError;
use crate::providers::invalid;

/// The URL without its query, which is ours, and the query.
pub(crate) fn split(url: &str) -> (String, String) {
    let (rest, fragment) = match url.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (url, None),
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let fragment = fragment
        .map(|fragment| format!("#{fragment}"))
        .unwrap_or_default();
    (format!("{address}{fragment}"), query.to_owned())
}

pub(crate) const UNESCAPED: &str = "wrong URL; a `?`, `#`, `/` or `@` in a user name or password is \
                                    written as `%3F`, `%23`, `%2F` or `%40`";

/// What was read from this query. What is wrong with it is not repeated where it may be a part of a
/// password.
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
    let duration = parse_duration(text).ok_or_else(|| {
        invalid(format!(
            "expected a duration such as `30s`, `1m30s` or `500ms` for `{key}`, got `{text}`"
        ))
    })?;
    slot.get_or_insert(duration);
    Ok(())
}

/// One or more pairs of a number and a unit, `ms s m h d`, as the attribute writes them.
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
    fn the_query_is_ours_and_the_fragment_the_clients() {
        assert_eq!(
            split("redis://h:1/2?lease=5s#f"),
            ("redis://h:1/2#f".to_owned(), "lease=5s".to_owned())
        );
        assert_eq!(split("redis://h"), ("redis://h".to_owned(), String::new()));
    }
}
