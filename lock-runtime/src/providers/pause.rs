//! Pauses of which many processes make use at once.

use std::time::Duration;

use crate::clock::Timestamp;

/// The span, a quarter shorter or longer. Not random, but different in every process and moment,
/// which is all that is needed for waiters not to look at the same time.
pub(crate) fn jittered(span: Duration) -> Duration {
    let noise = Timestamp::now()
        .as_nanos()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        >> 32;
    let part = noise as f64 / f64::from(u32::MAX);
    span.mul_f64(0.75 + part / 2.0)
}
