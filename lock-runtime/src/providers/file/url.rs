//! `file:` URLs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::settings::Settings;
use crate::LockError;
use crate::providers::kit::error::invalid;
use crate::providers::kit::url::unknown_parameter;

const PARAMETERS: [&str; 3] = ["key_prefix", "mode", "token_floor"];

/// Reads a URL.
pub(super) fn parse(url: &str) -> Result<Settings, LockError> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(invalid("expected `file:` and the path of a directory"));
    };
    if !scheme.eq_ignore_ascii_case("file") {
        return Err(invalid(format!(
            "expected the scheme `file:`, got `{scheme}:`"
        )));
    }
    if rest.contains('#') {
        return Err(invalid(
            "expected no `#` in the URL; write `%23` for one in a path",
        ));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = match place.strip_prefix("//") {
        None => place,
        Some(place) => match place.strip_prefix("localhost").unwrap_or(place) {
            path if path.starts_with('/') => path,
            _ => {
                return Err(invalid(
                    "expected no host: `file:/path` or `file:///path`, or `file:path` for a \
                     relative path",
                ));
            }
        },
    };
    if path.is_empty() {
        return Err(invalid("expected the path of a directory after `file:`"));
    }
    // Errors show the path, and this one was meant for another scheme.
    if path
        .split_once(':')
        .is_some_and(|(_, rest)| rest.contains('@'))
    {
        return Err(invalid(
            "expected a path without a user and password; write `%40` for an `@` in it",
        ));
    }
    let mut settings = Settings::new(PathBuf::from(OsString::from_vec(decode(path)?)));
    let mut given = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if given.contains(&key) {
            return Err(invalid(format!("the parameter `{key}` is given twice")));
        }
        match &*key {
            "key_prefix" => settings.key_prefix = value.into_owned(),
            "mode" => {
                let mode = u32::from_str_radix(&value, 8).map_err(|_| {
                    invalid("expected `mode` to be an octal number, such as `mode=0660`")
                })?;
                settings.mode = Some(mode);
            }
            "token_floor" => {
                let floor = value.parse();
                settings.token_floor =
                    floor.map_err(|_| invalid("expected `token_floor` to be a whole number"))?;
            }
            unknown => {
                return Err(unknown_parameter(unknown, &PARAMETERS));
            }
        }
        given.push(key);
    }
    settings.check()?;
    Ok(settings)
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
                invalid("expected `%` and two hexadecimal digits, not `00`, in the path")
            })?;
        decoded.push(byte);
        decoded.extend_from_slice(&piece.as_bytes()[2..]);
    }
    Ok(decoded)
}
