//! `file:` URLs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::{LockError, LockErrorKind};

pub(super) struct Settings {
    pub(super) directory: PathBuf,
    pub(super) key_prefix: String,
}

pub(super) fn parse(url: &str) -> Result<Settings, LockError> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(wrong("expected `file:` and the path of a directory"));
    };
    if !scheme.eq_ignore_ascii_case("file") {
        return Err(wrong(format!(
            "expected the scheme `file:`, got `{scheme}:`"
        )));
    }
    if rest.contains('#') {
        return Err(wrong(
            "expected no `#` in the URL; write `%23` for one in a path",
        ));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = match place.strip_prefix("//") {
        None => place,
        Some(place) => match place.strip_prefix("localhost").unwrap_or(place) {
            path if path.starts_with('/') => path,
            _ => {
                return Err(wrong(
                    "expected no host: `file:/path` or `file:///path`, or `file:path` for a \
                     relative path",
                ));
            }
        },
    };
    if path.is_empty() {
        return Err(wrong("expected the path of a directory after `file:`"));
    }
    let directory = PathBuf::from(OsString::from_vec(decode(path)?));

    let mut key_prefix = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "key_prefix" if key_prefix.is_some() => {
                return Err(wrong("the parameter `key_prefix` is given twice"));
            }
            "key_prefix" => key_prefix = Some(value.into_owned()),
            unknown => {
                return Err(wrong(format!(
                    "unknown parameter `{unknown}`; a `file:` URL knows `key_prefix`"
                )));
            }
        }
    }
    Ok(Settings {
        directory,
        key_prefix: key_prefix.unwrap_or_default(),
    })
}

/// Decodes percent sequences. Unlike in a query, `+` stands for itself.
fn decode(path: &str) -> Result<Vec<u8>, LockError> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut pieces = path.split('%');
    decoded.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let byte = piece
            .get(..2)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(|byte| *byte != 0)
            .ok_or_else(|| {
                wrong("expected `%` and two hexadecimal digits, not `00`, in the path")
            })?;
        decoded.push(byte);
        decoded.extend_from_slice(&piece.as_bytes()[2..]);
    }
    Ok(decoded)
}

fn wrong(detail: impl Into<String>) -> LockError {
    LockError::new(LockErrorKind::InvalidConfig).with_detail(detail)
}
