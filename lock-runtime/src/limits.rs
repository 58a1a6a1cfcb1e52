//! The bounds of what a caller may ask for. `lock-macros` has the same ones, which a test compares.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::{LockError, LockErrorKind};
use crate::name::LockName;

/// The shortest and the longest lease.
pub(crate) const LEASES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
/// The longest `min_hold`.
pub(crate) const LONGEST_MIN_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Refuses a `max_hold` or `min_hold` that is out of bounds, or that contradicts the other.
#[inline]
pub(crate) fn check_holds(
    name: &LockName,
    max_hold: Option<Duration>,
    min_hold: Option<Duration>,
) -> Result<(), LockError> {
    match (max_hold, min_hold) {
        (None, None) => Ok(()),
        _ => check_given(name, max_hold, min_hold),
    }
}

fn check_given(
    name: &LockName,
    max_hold: Option<Duration>,
    min_hold: Option<Duration>,
) -> Result<(), LockError> {
    let detail = match (max_hold, min_hold) {
        (Some(Duration::ZERO), _) => "expected a max_hold above zero".to_owned(),
        (_, Some(min)) if min > LONGEST_MIN_HOLD => {
            format!("expected a min_hold of at most 24 h, got {min:?}")
        }
        (Some(max), Some(min)) if min > max => {
            format!("expected a min_hold of at most the max_hold, {max:?}, got {min:?}")
        }
        _ => return Ok(()),
    };
    Err(LockError::new(LockErrorKind::InvalidConfig)
        .with_name(name.clone())
        .with_detail(detail))
}
