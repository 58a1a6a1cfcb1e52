//! The leases in use, which say how often to look where the server's name leads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Timestamp;

/// However short leases are, nobody looks more often.
const SHORTEST: Duration = Duration::from_millis(100);

/// The leases of those who hold a lock or ask for one, and when somebody looked last.
#[derive(Default)]
pub(super) struct Leases {
    counts: Mutex<Counts>,
    /// A shorter lease is in use than the next look is planned for.
    pub(super) shorter: Notify,
    /// When the last connection was begun that has been answered or failed, be it for a look or for
    /// a session.
    looked_at: AtomicU64,
    /// One look at a time serves all who ask.
    pub(super) looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Counts {
    of: BTreeMap<Duration, usize>,
    /// The next look is planned for a lease no shorter than this.
    planned: Duration,
    /// One has been in use since the last look.
    used: bool,
}

/// A lease in use, until this is dropped.
pub(super) struct LeaseInUse {
    leases: Arc<Leases>,
    lease: Duration,
}

impl Leases {
    /// Counts one more, until what this returns is dropped.
    pub(super) fn use_one(self: &Arc<Self>, lease: Duration) -> LeaseInUse {
        let is_shorter = {
            let mut counts = self.lock();
            *counts.of.entry(lease).or_default() += 1;
            counts.used = true;
            lease < counts.planned
        };
        if is_shorter {
            self.shorter.notify_one();
        }
        LeaseInUse {
            leases: Arc::clone(self),
            lease,
        }
    }

    /// Notes that a connection that was begun at this time has been answered, or has failed.
    pub(super) fn looked(&self, at: Timestamp) {
        self.looked_at.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }

    /// Says whether somebody has looked within this lease.
    pub(super) fn are_looked_at_within(&self, lease: Duration) -> bool {
        let looked_at = Timestamp::from_nanos(self.looked_at.load(Ordering::Relaxed));
        !(looked_at + lease.max(SHORTEST)).has_passed()
    }

    /// Says whether one was in use since this was last asked.
    pub(super) fn were_used(&self) -> bool {
        let mut counts = self.lock();
        let is_used = !counts.of.is_empty();
        std::mem::replace(&mut counts.used, is_used) || is_used
    }

    /// Plans the next look, and returns how long after the last one it is due.
    pub(super) fn plan(&self, default: Duration) -> Duration {
        let mut counts = self.lock();
        counts.planned = counts.of.keys().next().copied().unwrap_or(default);
        counts.planned.max(SHORTEST)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LeaseInUse {
    fn drop(&mut self) {
        let mut counts = self.leases.lock();
        if let Some(count) = counts.of.get_mut(&self.lease) {
            *count -= 1;
            if *count == 0 {
                counts.of.remove(&self.lease);
            }
        }
    }
}
