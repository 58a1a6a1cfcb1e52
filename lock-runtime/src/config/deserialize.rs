//! Reads a `LockConfig` with serde.
//!
//! It asks for any value at each place and looks at what comes. So no value is quoted by an error
//! of serde's own, which could show a password, and no number becomes text: `007` in the environment
//! would be the prefix `7`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};

use super::LockConfig;
use crate::name::Escaped;
use crate::providers::kit::url::{duration_of, unknown_of};

const SETTINGS: [&str; 5] = [
    "url",
    "key_prefix",
    "lease",
    "connect_timeout",
    "response_timeout",
];

/// Refuses each setting that is not known, and names the one that may be meant.
impl<'de> Deserialize<'de> for LockConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Settings)
    }
}

struct Settings;

impl<'de> Visitor<'de> for Settings {
    type Value = LockConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table with the settings `{}`", SETTINGS.join("`, `"))
    }

    /// Refuses a text, which may be a URL with a password, without showing it.
    fn visit_str<E: Error>(self, _: &str) -> Result<LockConfig, E> {
        Err(E::invalid_type(Unexpected::Other("text"), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LockConfig, A::Error> {
        let mut url = None;
        let mut config = LockConfig::new("");
        let mut seen = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(name) = SETTINGS.into_iter().find(|name| *name == key) else {
                let unknown = Escaped(&key).to_string();
                return Err(A::Error::custom(unknown_of("setting", &unknown, &SETTINGS)));
            };
            if seen.contains(&name) {
                return Err(A::Error::duplicate_field(name));
            }
            seen.push(name);
            let text = map.next_value::<Text>()?.read(name)?;
            let duration = || {
                let read = text.as_deref().map(|text| duration_of(name, text));
                read.transpose().map_err(A::Error::custom)
            };
            match name {
                "url" => url = text,
                "key_prefix" => config.key_prefix = text,
                "lease" => config.lease = duration()?,
                "connect_timeout" => config.connect_timeout = duration()?,
                _ => config.response_timeout = duration()?,
            }
        }
        config.url = url.ok_or_else(|| A::Error::missing_field("url"))?;
        Ok(config)
    }
}

/// What stands where a setting's text should.
enum Text {
    Given(String),
    Absent,
    /// Something else, called like this.
    Other(&'static str),
}

impl Text {
    fn read<E: Error>(self, name: &str) -> Result<Option<String>, E> {
        let (example, hint) = match name {
            "url" => ("redis://127.0.0.1:6379", ""),
            "key_prefix" => ("shop:", "; what looks like a number needs quotation marks"),
            _ => ("5s", ", with its unit"),
        };
        match self {
            Self::Given(text) => Ok(Some(text)),
            Self::Absent => Ok(None),
            Self::Other(what) => Err(E::custom(format!(
                "expected text such as \"{example}\" for `{name}`{hint}; got {what}"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text::Given(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Text, E> {
        Ok(Text::Given(text))
    }

    fn visit_none<E: Error>(self) -> Result<Text, E> {
        Ok(Text::Absent)
    }

    fn visit_unit<E: Error>(self) -> Result<Text, E> {
        Ok(Text::Absent)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        Text::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Text, D::Error> {
        Text::deserialize(inner)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Text, E> {
        Ok(Text::Other("true or false"))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Text, E> {
        Ok(Text::Other("a number"))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Text, E> {
        Ok(Text::Other("a number"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Text, E> {
        Ok(Text::Other("a number"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::de::value::{Error, MapDeserializer};

    use super::*;

    fn lease_of(text: &str) -> Result<Option<Duration>, String> {
        let pairs = [("url", "memory:"), ("lease", text)];
        let map = MapDeserializer::<_, Error>::new(pairs.into_iter());
        let config = LockConfig::deserialize(map).map_err(|error| error.to_string())?;
        Ok(config.lease)
    }

    #[test]
    fn durations_are_those_of_urls() {
        assert_eq!(lease_of("1m30s"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(lease_of("500ms"), Ok(Some(Duration::from_millis(500))));
        for wrong in ["", "5", "5 s", "1.5s", "-5s", "5y"] {
            let error = lease_of(wrong).unwrap_err();
            assert!(error.starts_with("expected a duration such as"), "{error}");
            assert!(
                error.ends_with(&format!("`lease`, got `{wrong}`")),
                "{error}"
            );
        }
    }
}
