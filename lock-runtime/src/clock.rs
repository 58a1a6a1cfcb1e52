//! `Timestamp`: the library's only clock, which goes on while the machine is suspended.
//!
//! On Linux, `std::time::Instant` stops meanwhile (rust-lang/rust#87906), but the server's clock
//! does not: a lease would look valid long after it ended. Linux's `BOOTTIME` and the monotonic
//! clocks of the Apple systems go on.

use std::fmt;
use std::ops::Add;
use std::time::{Duration, SystemTime};

/// A moment on a clock that never steps back and that goes on while the machine is suspended.
///
/// Two moments can be compared only within one boot of one machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Returns this moment to a few milliseconds, for a fraction of the cost of `now`. The two
    /// cannot be compared with each other.
    pub(crate) fn roughly() -> Self {
        #[cfg(target_os = "linux")]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
            Self(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
        }
        #[cfg(not(target_os = "linux"))]
        {
            Self::now()
        }
    }
}

impl Timestamp {
    /// The latest moment there is; a lease that ends here never ends.
    pub(crate) const FAR_FUTURE: Self = Self(u64::MAX);

    /// Stands for no moment, since the machine was not on then.
    pub(crate) const NONE: Self = Self(0);

    /// Returns this moment.
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            // Neither part is negative on a clock that counts from boot.
            Self(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
        }
        #[cfg(all(unix, not(target_os = "linux")))]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            Self(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
        }
        #[cfg(not(unix))]
        {
            use once_cell::sync::Lazy;
            use std::time::Instant;
            #[expect(clippy::disallowed_methods, reason = "the one place")]
            static START: Lazy<Instant> = Lazy::new(Instant::now);
            Self(u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX))
        }
    }

    /// Returns how long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns how long it is until this moment; zero if it has passed.
    pub fn remaining(self) -> Duration {
        self.since(Self::now())
    }

    /// Tells whether this moment has come.
    pub fn has_passed(self) -> bool {
        Self::now() >= self
    }

    /// Returns what the machine's wall clock showed at this moment, if it was not set since then.
    pub(crate) fn to_system_time(self) -> SystemTime {
        #[expect(clippy::disallowed_methods, reason = "people read it")]
        let now = SystemTime::now();
        let ago = Self::now().since(self);
        now.checked_sub(ago).unwrap_or(now)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }
}

/// Returns how long it is since the beginning of 1970, by the machine's clock, which may be set
/// wrongly.
#[cfg(feature = "file")]
pub(crate) fn since_epoch() -> Duration {
    use std::time::UNIX_EPOCH;
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// An optional span in eight bytes, for values that are copied often. A longer span than 584 years
/// counts as 584 years.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(u64);

impl Span {
    pub(crate) const NONE: Self = Self(u64::MAX);

    #[inline]
    pub(crate) fn of(span: Duration) -> Self {
        Self(
            u64::try_from(span.as_nanos())
                .unwrap_or(u64::MAX - 1)
                .min(u64::MAX - 1),
        )
    }

    #[inline]
    pub(crate) fn maybe(span: Option<Duration>) -> Self {
        span.map_or(Self::NONE, Self::of)
    }

    #[inline]
    pub(crate) const fn get(self) -> Option<Duration> {
        match self.0 {
            u64::MAX => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    #[inline]
    pub(crate) const fn is_none(self) -> bool {
        self.0 == u64::MAX
    }

    #[inline]
    pub(crate) const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Adds the span, but not beyond the far future.
    fn add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({:?})", Duration::from_nanos(self.0))
    }
}
