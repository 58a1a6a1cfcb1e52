//! `LockName`: the name of a lock, as the user writes it.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The longest name, in bytes of UTF-8.
const MAX_BYTES: usize = 1_024;

/// The name of a lock: any non-empty UTF-8 text without NUL, up to 1,024 bytes, case-sensitive.
///
/// To make one always succeeds, so that any text can be converted. An acquisition refuses a name
/// that breaks the rule, with [`InvalidName`](crate::LockErrorKind::InvalidName). A name is cheap
/// to clone.
#[derive(Clone)]
pub struct LockName(Text);

#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl LockName {
    /// Makes a name that is known at compile time, without an allocation.
    pub const fn from_static(name: &'static str) -> Self {
        Self(Text::Static(name))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static(name) => name,
            Text::Shared(name) => name,
        }
    }

    /// Returns what breaks the rule of names; `None` if nothing does.
    pub(crate) fn fault(&self) -> Option<String> {
        let name = self.as_str();
        if name.is_empty() {
            Some("expected at least one character".to_owned())
        } else if name.len() > MAX_BYTES {
            Some(format!(
                "expected at most {MAX_BYTES} bytes, got {}",
                name.len()
            ))
        } else if name.bytes().any(|byte| byte == 0) {
            Some("expected no NUL character".to_owned())
        } else {
            None
        }
    }

    /// Returns the first 64 characters, for an error about a name that may be megabytes long.
    pub(crate) fn beginning(&self) -> &str {
        let name = self.as_str();
        name.char_indices()
            .nth(64)
            .map_or(name, |(end, _)| &name[..end])
    }

    /// Returns the name for a log or an error, with its control characters escaped. A line break in
    /// a name would begin a line that looks like another log entry.
    pub(crate) fn shown(&self) -> Escaped<'_> {
        Escaped(self.as_str())
    }
}

/// Text with its control characters escaped, as in a Rust literal.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(is_control) {
            f.write_str(&rest[..at])?;
            let Some(control) = rest[at..].chars().next() else {
                break;
            };
            write!(f, "{}", control.escape_default())?;
            rest = &rest[at + control.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// Tells whether the character must be escaped: a control character, or one of the others that
/// begin a line or change the direction of the text.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl From<&str> for LockName {
    fn from(name: &str) -> Self {
        Self(Text::Shared(name.into()))
    }
}

impl From<String> for LockName {
    fn from(name: String) -> Self {
        Self(Text::Shared(name.into()))
    }
}

impl From<&String> for LockName {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl From<Cow<'_, str>> for LockName {
    fn from(name: Cow<'_, str>) -> Self {
        name.as_ref().into()
    }
}

impl From<Box<str>> for LockName {
    fn from(name: Box<str>) -> Self {
        Self(Text::Shared(name.into()))
    }
}

impl From<Arc<str>> for LockName {
    fn from(name: Arc<str>) -> Self {
        Self(Text::Shared(name))
    }
}

impl From<&LockName> for LockName {
    fn from(name: &LockName) -> Self {
        name.clone()
    }
}

impl AsRef<str> for LockName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for LockName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for LockName {}

impl PartialEq<str> for LockName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for LockName {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

/// Compares by bytes, as `str` does.
impl Ord for LockName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for LockName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Borrows the text, whose equality, order and hash are the name's. So a map of names can be
/// searched with `&str`.
impl Borrow<str> for LockName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for LockName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Refuses each name that [`validate`](LockName::validate) refuses.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for LockName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Self::from(String::deserialize(deserializer)?);
        match name.fault() {
            None => Ok(name),
            Some(fault) => Err(serde::de::Error::custom(fault)),
        }
    }
}

impl Hash for LockName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn names_are_keys_that_text_finds() {
        let names = ["b", "a:2", "a:10"].map(LockName::from);
        let map: BTreeMap<_, _> = names.iter().cloned().zip(0..).collect();
        assert_eq!(map.get("a:2"), Some(&1));
        let sorted: Vec<_> = map.keys().map(LockName::as_str).collect();
        assert_eq!(sorted, ["a:10", "a:2", "b"]);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn names_and_tokens_are_serialized_as_text_and_number() {
        use serde::de::value::{Error, StrDeserializer, U64Deserializer};
        use serde::de::{Deserialize, IntoDeserializer};

        use crate::FencingToken;

        let name = |text: &'static str| {
            let from: StrDeserializer<'_, Error> = text.into_deserializer();
            LockName::deserialize(from)
        };
        assert_eq!(name("invoice:7").unwrap(), "invoice:7");
        let refused = name("").unwrap_err().to_string();
        assert_eq!(refused, "expected at least one character");
        let number: U64Deserializer<Error> = 7_u64.into_deserializer();
        assert_eq!(FencingToken::deserialize(number).unwrap().get(), 7);
    }
}
