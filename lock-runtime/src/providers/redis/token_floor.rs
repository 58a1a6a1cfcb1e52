//! Where fencing tokens begin: what `token_floor` means.

use crate::LockError;
use crate::providers::kit::error::invalid;

/// Numbers in the server's scripts are floating and exact up to 9 × 10¹⁵. This leaves room for the
/// clock until the year 2033.
const HIGHEST_FLOOR: u64 = 7_000_000_000_000_000;
/// No server's clock is before this, in microseconds: November 2023.
const PAST: u64 = 1_700_000_000_000_000;

/// A floor that any clock has passed is kept by the clock. Above it, the counter runs ahead of the
/// clock by the whole floor, so that tokens grow over a lost counter too. What it had reached is
/// behind the clock that is put forward. What the bare clock gives in its place is seen to be too
/// low.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tokens {
    /// How far the counter is ahead of the server's clock, in microseconds.
    pub(super) ahead: u64,
    /// Tokens up to this one are none.
    pub(super) none_up_to: u64,
}

impl Tokens {
    /// Puts tokens above `token_floor`, or zero.
    pub(super) fn above(floor: u64) -> Result<Self, LockError> {
        match floor {
            ..PAST => Ok(Self::default()),
            PAST..HIGHEST_FLOOR => Ok(Self {
                ahead: floor,
                none_up_to: floor + PAST,
            }),
            _ => Err(invalid(format!(
                "expected a `token_floor` below {HIGHEST_FLOOR}: the counter has room for the \
                 server's clock above it, and goes no further"
            ))),
        }
    }
}
