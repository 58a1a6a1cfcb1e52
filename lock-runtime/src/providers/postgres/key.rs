//! Which advisory lock a key is: the encoding of the .NET `DistributedLock` library.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha1::{Digest, Sha1};

use crate::LockError;
#[cfg(doc)]
use crate::LockErrorKind;
use crate::provider::LockMode;
use crate::providers::kit::error::unsupported;

/// The longest text that is packed into an integer pair, in UTF-16 code units.
const PACKED: usize = 9;

/// The arguments of PostgreSQL's advisory lock functions. The two forms are separate spaces of
/// locks: `pg_advisory_lock(1)` and `pg_advisory_lock(0, 1)` do not exclude each other.
///
/// Displayed, it is what stands between the parentheses in SQL.
///
/// # Examples
///
/// Taking a provider's lock inside a transaction of one's own, which releases it at its end:
///
/// ```
/// use lock_runtime::postgres::advisory_key;
///
/// let sql = format!("SELECT pg_advisory_xact_lock({})", advisory_key("MyApp1:orders:42"));
/// assert_eq!(sql, "SELECT pg_advisory_xact_lock(-8583934633386423277)");
/// let sql = format!("SELECT pg_advisory_xact_lock({})", advisory_key("orders:42"));
/// assert_eq!(sql, "SELECT pg_advisory_xact_lock(-540334498, 1558000740)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdvisoryKey {
    /// One `bigint`.
    Int8(i64),
    /// Two `integer`s.
    Int4Pair(i32, i32),
}

impl AdvisoryKey {
    /// Returns the SQL that takes this lock in a transaction of your own, and waits for it as long as
    /// it takes. The lock ends with the transaction.
    ///
    /// A reader shares it with the readers of [`DistributedRwLock`](crate::DistributedRwLock). A
    /// writer has it alone; so has a mutex.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](LockErrorKind::Unsupported) for upgradeable reads and for permits, which one
    /// statement cannot take.
    ///
    /// # Examples
    ///
    /// ```
    /// use lock_runtime::LockMode;
    /// use lock_runtime::postgres::advisory_key;
    ///
    /// # fn main() -> Result<(), lock_runtime::LockError> {
    /// let key = advisory_key("MyApp1:orders:42");
    /// let sql = key.lock_in_transaction(LockMode::Read)?;
    /// assert_eq!(sql, "SELECT pg_advisory_xact_lock_shared(-8583934633386423277)");
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock_in_transaction(self, mode: LockMode) -> Result<String, LockError> {
        let shared = in_transaction(mode)?;
        Ok(format!("SELECT pg_advisory_xact_lock{shared}({self})"))
    }

    /// Returns the SQL that tries this lock in a transaction of your own, and answers at once whether
    /// the transaction has it.
    ///
    /// # Errors
    ///
    /// As [`lock_in_transaction`](Self::lock_in_transaction).
    pub fn try_in_transaction(self, mode: LockMode) -> Result<String, LockError> {
        let shared = in_transaction(mode)?;
        Ok(format!("SELECT pg_try_advisory_xact_lock{shared}({self})"))
    }

    /// Returns what the columns `classid`, `objid` and `objsubid` of `pg_locks` say of it.
    pub(super) fn in_pg_locks(self) -> (i64, i64, i16) {
        let (high, low, form) = match self {
            Self::Int8(key) => ((key >> 32) as u32, key as u32, 1),
            Self::Int4Pair(high, low) => (high.cast_unsigned(), low.cast_unsigned(), 2),
        };
        (i64::from(high), i64::from(low), form)
    }
}

/// Returns how a function's name goes on that takes a lock in this mode.
fn in_transaction(mode: LockMode) -> Result<&'static str, LockError> {
    match mode {
        LockMode::Exclusive | LockMode::Write => Ok(""),
        LockMode::Read => Ok("_shared"),
        LockMode::Upgradeable | LockMode::Permits { .. } => Err(unsupported(
            "one statement takes a mutex, a read or a write in a transaction, and nothing else",
        )),
    }
}

impl fmt::Display for AdvisoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int8(key) => write!(f, "{key}"),
            Self::Int4Pair(high, low) => write!(f, "{high}, {low}"),
        }
    }
}

/// Returns the advisory lock that a [`PostgresProvider`](super::PostgresProvider) takes for a name,
/// and the .NET `DistributedLock` library too. `key` is the provider's key prefix followed by the
/// name.
///
/// * Up to 9 ASCII characters are packed into an integer pair, 7 bits each.
/// * 16 hexadecimal digits are a `bigint`; 8, a comma and 8 more are an integer pair.
/// * Everything else is hashed into a `bigint`: the first 8 bytes of its SHA-1. Two names in use
///   may then share a lock. Among a million names, that has a chance of 1 in 37 million. Such names
///   would wait for each other, and never hold the lock both.
pub fn advisory_key(key: &str) -> AdvisoryKey {
    packed(key)
        .or_else(|| written_out(key))
        .unwrap_or_else(|| hashed(key))
}

/// The lock of a name, and two locks beside it. All waiters for a notice hold the second one in
/// shared mode, so whoever releases the first sees in the same round trip that somebody waits.
/// Those who do not want to share the lock hold the third one too, so that readers let them by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) lock: AdvisoryKey,
    /// Made of the lock's key, so that tells one from another.
    pub(super) waiters: i64,
    pub(super) writers: i64,
}

/// What follows NUL in the texts of a semaphore's keys: before a permit's number, and for the
/// turnstile. What asks for permits in this process has a key too, which no server is asked for.
const PERMIT: &str = "permit";
pub(super) const TURNSTILE: &str = "permits";
pub(super) const ASKING: &str = "permit";
/// The same for the right to upgrade a reader.
pub(super) const UPGRADE: &str = "upgrade";

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.lock == other.lock
    }
}

impl Eq for Keys {}

impl Hash for Keys {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lock.hash(state);
    }
}

impl Keys {
    /// Makes the second key of the lock's key and not of its name, since two names may share a key.
    pub(super) fn of(lock: AdvisoryKey) -> Self {
        let bits = match lock {
            AdvisoryKey::Int8(key) => key.cast_unsigned(),
            AdvisoryKey::Int4Pair(high, low) => {
                let high = u64::from(high.cast_unsigned()) << 32;
                !(high | u64::from(low.cast_unsigned()))
            }
        };
        Self {
            lock,
            waiters: scattered(bits),
            writers: scattered(scattered(bits).cast_unsigned()),
        }
    }

    /// Makes the keys of a lock that belongs to the one with this name, by a text that follows NUL:
    /// no name has that. They are always hashed, and so there are only `bigint`s among them.
    pub(super) fn beside(name: &str, what: &str) -> Self {
        Self::of(hashed(&format!("{name}\0{what}")))
    }

    /// Returns the keys of the permits with these numbers.
    pub(super) fn of_permits(name: &str, numbers: impl Iterator<Item = u32>) -> Vec<Self> {
        let begun = Sha1::new_with_prefix(format!("{name}\0{PERMIT}"));
        let key = |number: u32| {
            let hash = begun.clone().chain_update(number.to_string()).finalize();
            Self::of(first_bytes(&hash))
        };
        numbers.map(key).collect()
    }

    /// Names the key itself, and not that of waiters, as the one of the channel.
    pub(super) fn heard_by_itself(self) -> Self {
        Self {
            waiters: self.bigint(),
            ..self
        }
    }

    /// Returns the lock as a `bigint`, which it is if it was hashed.
    pub(super) fn bigint(self) -> i64 {
        match self.lock {
            AdvisoryKey::Int8(key) => key,
            AdvisoryKey::Int4Pair(high, low) => {
                i64::from(high) << 32 | i64::from(low.cast_unsigned())
            }
        }
    }

    /// Returns the key of those who wait for a notice.
    pub(super) fn of_waiters(self) -> AdvisoryKey {
        AdvisoryKey::Int8(self.waiters)
    }

    /// Names the channel on which notices of a release are heard.
    pub(super) fn channel(self) -> String {
        format!("lk1_{:x}", self.waiters)
    }

    /// Returns the key of those who wait for a notice on this channel.
    pub(super) fn of_channel(channel: &str) -> Option<i64> {
        let digits = channel.strip_prefix("lk1_")?;
        u64::from_str_radix(digits, 16).ok().map(u64::cast_signed)
    }
}

fn packed(key: &str) -> Option<AdvisoryKey> {
    if !key.is_ascii() || key.len() > PACKED {
        return None;
    }
    let mut bits = key
        .bytes()
        .fold(0, |bits, character| bits << 7 | u64::from(character));
    bits <<= 1;
    for _ in key.len()..PACKED {
        bits = bits << 7 | 0x7F;
    }
    Some(pair((bits >> 32) as u32, bits as u32))
}

fn written_out(key: &str) -> Option<AdvisoryKey> {
    match key.len() {
        16 => hex(key.as_bytes()).map(|key| AdvisoryKey::Int8(key.cast_signed())),
        17 if key.as_bytes()[8] == b',' => {
            let high = hex(&key.as_bytes()[..8])?;
            let low = hex(&key.as_bytes()[9..])?;
            Some(pair(high as u32, low as u32))
        }
        _ => None,
    }
}

/// Returns another number for each, far from those that people use: the last steps of splitmix64.
fn scattered(bits: u64) -> i64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)).cast_signed()
}

fn hashed(key: &str) -> AdvisoryKey {
    first_bytes(&Sha1::digest(key.as_bytes()))
}

fn first_bytes(hash: &[u8]) -> AdvisoryKey {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    AdvisoryKey::Int8(i64::from_le_bytes(first))
}

fn pair(high: u32, low: u32) -> AdvisoryKey {
    AdvisoryKey::Int4Pair(high.cast_signed(), low.cast_signed())
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::AdvisoryKey::{Int4Pair, Int8};
    use super::*;

    /// From the .NET library's own tests, and others that an independent program worked out.
    #[test]
    fn keys_are_those_of_dotnet() {
        let long = "漢".repeat(18);
        for (name, key) in [
            (long.as_str(), Int8(-5_707_277_204_051_710_361)),
            ("\0\0\0\0\0\0\0\0\0", Int4Pair(0, 0)),
            ("0000000000000001", Int8(1)),
            ("00000003,ffffffff", Int4Pair(3, -1)),
            ("a", Int4Pair(-1_023_410_177, -1)),
            ("A", Int4Pair(-2_097_152_001, -1)),
            ("lock", Int4Pair(-641_786_185, -1)),
            ("orders:42", Int4Pair(-540_334_498, 1_558_000_740)),
            ("1234567890", Int8(-768_901_973_204_815_103)),
            ("nightly-report", Int8(7_635_146_791_061_737_145)),
        ] {
            assert_eq!(advisory_key(name), key, "{name:?}");
            assert_eq!(advisory_key(name), key, "the same every time");
        }
    }

    #[test]
    fn what_only_looks_written_out_is_hashed() {
        for name in [
            "000000000000000g",
            "+000000000000001",
            "00000003;ffffffff",
            "00000003,fffffff ",
            "00000003,ffffffffe",
            "é000000000000001",
        ] {
            assert!(
                matches!(advisory_key(name), Int8(key) if key != 1),
                "{name}"
            );
            assert_eq!(advisory_key(name), hashed(name), "{name}");
        }
        assert_eq!(advisory_key("00000003,FFFFFFFF"), Int4Pair(3, -1));
    }

    /// Other versions of the library must find the same.
    #[test]
    fn the_keys_of_waiters_stay() {
        let of = |lock| Keys::of(lock).waiters;
        assert_eq!(of(Int8(1)), -7_995_527_694_508_729_151);
        assert_ne!(of(Int8(1)), of(Int4Pair(0, 1)));
        let keys = Keys::of(Int8(-1));
        assert_eq!(Keys::of_channel(&keys.channel()), Some(keys.waiters));
        assert_eq!(Keys::of_channel("other"), None);
    }

    /// Other versions of the library must find the same.
    #[test]
    fn the_keys_of_semaphores_stay() {
        let turnstile = Keys::beside("orders:42", TURNSTILE);
        assert_eq!(turnstile.lock, advisory_key("orders:42\0permits"));
        let permits = Keys::of_permits("orders:42", [0, 4_294_967_295].into_iter());
        let texts = ["orders:42\0permit0", "orders:42\0permit4294967295"];
        for (permit, text) in permits.iter().zip(texts) {
            assert_eq!(permit.lock, advisory_key(text));
        }
        let channel = turnstile.heard_by_itself().channel();
        assert_eq!(channel, format!("lk1_{:x}", turnstile.bigint()));
        // A short text is hashed too.
        let short = Keys::of_permits("a", [7].into_iter());
        assert!(matches!(short[0].lock, Int8(_)));
    }

    /// Every text up to nine characters has a key of its own; a million longer ones do too.
    #[test]
    fn different_names_have_different_keys() {
        let short = [
            "",
            "a",
            "aa",
            "\x7f",
            "a\x7f",
            "a\0",
            "\0",
            "aaaaaaaa",
            "aaaaaaaaa",
        ];
        let long = (0..1_000_000).map(|number| format!("customer-order:{number}"));
        let short = short.into_iter().map(str::to_owned);
        let keys: HashSet<_> = short.chain(long).map(|name| advisory_key(&name)).collect();
        assert_eq!(keys.len(), 9 + 1_000_000);
    }
}
