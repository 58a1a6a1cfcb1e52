//! `LockState` and `Holder`: who has a lock, as far as a provider can tell.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::mode::LockMode;
use crate::host;
use crate::name::Escaped;

/// Who holds a lock and how many wait for it, at the moment when the provider looked.
///
/// It is for people, logs and dashboards. Nothing may be decided by it: the next moment it may be
/// wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockState {
    holders: Vec<Holder>,
    waiters: Option<usize>,
    available: Option<u32>,
}

impl LockState {
    /// Describes a lock that these holders have; none if it is free.
    pub fn new(holders: Vec<Holder>) -> Self {
        Self {
            holders,
            waiters: None,
            available: None,
        }
    }

    /// Adds how many wait for it.
    #[must_use]
    pub fn with_waiters(mut self, waiters: usize) -> Self {
        self.waiters = Some(waiters);
        self
    }

    /// Adds how many permits of a semaphore are left.
    #[must_use]
    pub fn with_available(mut self, available: u32) -> Self {
        self.available = Some(available);
        self
    }

    /// Adds to the one holder in this process what the process itself knows.
    pub(crate) fn with_own(mut self, own: &Holder) -> Self {
        let mut here = self.holders.iter_mut().filter(|it| it.is_this_process());
        if let (Some(holder), None) = (here.next(), here.next()) {
            holder.since = holder.since.or(own.since);
            holder.mode = holder.mode.or(own.mode);
            holder.expires_in = holder.expires_in.or(own.expires_in);
        }
        self
    }

    /// Returns the holders. A holder of several permits is listed once, but by some providers once for
    /// each permit.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Returns how many wait; `None` if the provider cannot tell. A process that waits at the
    /// server for several of its callers counts once.
    pub fn waiters(&self) -> Option<usize> {
        self.waiters
    }

    /// Returns how many permits of a semaphore are left; `None` for other locks, or if it is not
    /// known how many there are.
    pub fn available(&self) -> Option<u32> {
        self.available
    }
}

/// One holder of a lock. All but the [label](Self::label) may be unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// `None` for this process.
    label: Option<Cow<'static, str>>,
    mode: Option<LockMode>,
    since: Option<SystemTime>,
    expires_in: Option<Duration>,
    permits: Option<u32>,
}

impl Holder {
    /// Describes a holder that is called so, such as `billing-7f9c (pid 4711)`. The label must hold
    /// no secret.
    pub fn new(label: impl Into<Cow<'static, str>>) -> Self {
        Self {
            label: Some(label.into()),
            ..Self::here()
        }
    }

    /// Describes a holder in this process.
    pub fn here() -> Self {
        Self {
            label: None,
            mode: None,
            since: None,
            expires_in: None,
            permits: None,
        }
    }

    /// Describes a holder that left no label that this library can read.
    pub fn another_client() -> Self {
        Self::new("another client")
    }

    /// Adds what the holder has of the lock.
    #[must_use]
    pub fn with_mode(mut self, mode: LockMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Adds when the holder got the lock.
    #[must_use]
    pub fn with_since(mut self, since: SystemTime) -> Self {
        self.since = Some(since);
        self
    }

    /// Adds after how long the lock ends unless it is renewed.
    #[must_use]
    pub fn with_expires_in(mut self, expires_in: Duration) -> Self {
        self.expires_in = Some(expires_in);
        self
    }

    /// Adds how many permits of a semaphore it has.
    #[must_use]
    pub fn with_permits(mut self, permits: u32) -> Self {
        self.permits = Some(permits);
        self
    }

    /// Returns what the holder is called: its host and process id if this library made the grant,
    /// and `another client` if it left no label.
    pub fn label(&self) -> &str {
        match &self.label {
            Some(label) => label,
            None => host::own_label(),
        }
    }

    /// Returns what the holder has of the lock; `None` if it is not known.
    pub fn mode(&self) -> Option<LockMode> {
        self.mode
    }

    /// Returns when the holder got the lock, by the clock of this machine; `None` if it is not
    /// known.
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Returns after how long the lock ends unless it is renewed; `None` if it has no lease, or if
    /// that is not known.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// Returns how many permits of a semaphore it has; `None` for other locks, or if that is not
    /// known.
    pub fn permits(&self) -> Option<u32> {
        self.permits
    }

    /// Tells whether the holder is known to be in this process.
    pub fn is_this_process(&self) -> bool {
        self.label.is_none()
    }
}

/// Writes the label, and for how long the holder has had the lock if that is known, such as
/// `billing-7f9c (pid 4711) for 3.2 s`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Escaped, since another client may have written it.
        write!(f, "{}", Escaped(self.label()))?;
        match self.since.and_then(|since| since.elapsed().ok()) {
            Some(held) => write!(f, " for {:.1} s", held.as_secs_f64()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_holder_reads_as_a_sentence_has_it() {
        let holder = Holder::new("billing-7f9c (pid 4711)");
        assert_eq!(holder.to_string(), "billing-7f9c (pid 4711)");
        let now = || Timestamp::now().to_system_time();
        let since = now() - Duration::from_millis(3_240);
        let text = holder.with_since(since).to_string();
        assert!(
            text.starts_with("billing-7f9c (pid 4711) for 3.2"),
            "{text}"
        );
        // A clock that was set back tells nothing.
        let later = now() + Duration::from_secs(60);
        let text = Holder::another_client().with_since(later).to_string();
        assert_eq!(text, "another client");
        assert_eq!(Holder::new("a\nb").to_string(), "a\\nb");
    }
}
