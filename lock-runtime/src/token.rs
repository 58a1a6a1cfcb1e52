//! `FencingToken`: a number that grows with every grant of a lock.

use std::fmt;

/// A number that grows strictly with every grant of a lock's name, across processes.
///
/// Store it with the data that the lock protects, and refuse a write whose token is below the
/// highest one seen. Then even a holder that was frozen for longer than its lease, and does not
/// know it yet, can do no harm. See Martin Kleppmann, *How to do distributed locking* (2016).
///
/// Every token of a provider fits in an `i64`, the type of most databases' large integers, and
/// converts to and from it.
///
/// # Changing providers
///
/// Tokens of two providers must not be compared, since each provider counts for itself. A service
/// that moves to another provider first stops. Then it sets the stored tokens' column to zero or
/// begins a new one, and starts again. If the new provider takes a `token_floor` (Redis, files),
/// the stored tokens can stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// Makes the token of this value. It is for providers.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the token's value.
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<u64> for FencingToken {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl From<FencingToken> for u64 {
    fn from(token: FencingToken) -> Self {
        token.0
    }
}

/// Converts a token for an SQL column. The tokens of every provider fit; a value above `i64::MAX`
/// becomes `i64::MAX`.
impl From<FencingToken> for i64 {
    fn from(token: FencingToken) -> Self {
        Self::try_from(token.0).unwrap_or(Self::MAX)
    }
}

/// Converts the value of an SQL column. A negative number, which no token becomes, counts as zero.
impl From<i64> for FencingToken {
    fn from(value: i64) -> Self {
        Self(u64::try_from(value).unwrap_or(0))
    }
}

/// Serializes the token as a number.
#[cfg(feature = "serde")]
impl serde::Serialize for FencingToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for FencingToken {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}
