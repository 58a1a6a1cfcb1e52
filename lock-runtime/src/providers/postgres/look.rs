//! Looking where the server's name leads, while locks are held or waited for. A session of a server
//! that was replaced goes on working, and shows nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::opening;
use super::pool::Pool;
use crate::clock::Timestamp;
use crate::race::first_of;

/// However short leases are, it is looked no more often.
const SHORTEST: Duration = Duration::from_millis(100);

/// The leases of those who hold a lock or ask for one, and when it was looked last.
#[derive(Default)]
pub(super) struct Leases {
    counts: Mutex<Counts>,
    shorter: Notify,
    /// Also whenever a session was opened.
    looked_at: AtomicU64,
    /// One look at a time serves all who ask.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Counts {
    of: BTreeMap<Duration, usize>,
    /// The next look is planned for one no shorter than this.
    planned: Duration,
    /// Since the last look.
    used: bool,
}

/// One of those.
pub(super) struct InUse {
    leases: Arc<Leases>,
    lease: Duration,
}

impl Leases {
    /// Counts one more, until what this returns is dropped.
    pub(super) fn use_one(self: &Arc<Self>, lease: Duration) -> InUse {
        let is_shorter = {
            let mut counts = self.lock();
            *counts.of.entry(lease).or_default() += 1;
            counts.used = true;
            lease < counts.planned
        };
        if is_shorter {
            self.shorter.notify_one();
        }
        InUse {
            leases: Arc::clone(self),
            lease,
        }
    }

    /// A connection that was begun at this time has been answered, or failed.
    pub(super) fn looked(&self, at: Timestamp) {
        self.looked_at.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }

    fn is_looked_at_within(&self, lease: Duration) -> bool {
        let looked_at = Timestamp::from_nanos(self.looked_at.load(Ordering::Relaxed));
        !(looked_at + lease.max(SHORTEST)).has_passed()
    }

    /// Whether there was one in use since this was asked.
    fn were_used(&self) -> bool {
        let mut counts = self.lock();
        let is_used = !counts.of.is_empty();
        std::mem::replace(&mut counts.used, is_used) || is_used
    }

    fn plan(&self, default: Duration) -> Duration {
        let mut counts = self.lock();
        counts.planned = counts.of.keys().next().copied().unwrap_or(default);
        counts.planned.max(SHORTEST)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse {
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

/// Looks once a lease, the shortest in use, while there is one in use.
pub(super) async fn look_again_and_again(pool: Weak<Pool>) {
    let mut last = Timestamp::now();
    while let Some((leases, default)) = pool
        .upgrade()
        .map(|pool| (Arc::clone(&pool.leases), pool.settings.lease))
    {
        let due = last + leases.plan(default);
        if !due.has_passed() {
            let sleep = tokio::time::sleep(due.remaining());
            first_of(sleep, leases.shorter.notified()).await;
            continue;
        }
        last = Timestamp::now();
        if leases.were_used()
            && let Some(pool) = pool.upgrade()
        {
            look(&pool).await;
        }
    }
}

/// Looks before a lock of this lease is asked for, if nobody has looked for so long: a session that
/// was idle meanwhile may be one of a server that was replaced long ago.
pub(super) async fn look_before(pool: &Pool, lease: Duration) {
    if pool.leases.is_looked_at_within(lease) {
        return;
    }
    let looking = async {
        let _one = pool.leases.looking.lock().await;
        if !pool.leases.is_looked_at_within(lease) {
            look(pool).await;
        }
    };
    let patience = pool.settings.patience(lease);
    if tokio::time::timeout(patience, looking).await.is_err() {
        pool.leases.looked(Timestamp::now());
    }
}

/// What it shows counts; that it failed shows nothing.
async fn look(pool: &Pool) {
    let at = Timestamp::now();
    let shown = opening::look(&pool.settings).await;
    pool.leases.looked(at);
    if let Err(error) = shown.and_then(|server| pool.found(server, at)) {
        tracing::debug!(%error, "could not look where the server's name leads");
    }
}
