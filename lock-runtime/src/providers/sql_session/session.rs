//! One session of the server: what it is used for, and whether it can be.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fault::ClientError;
use super::traits::{
    Access, Answer, BackendOf, Granted, LockSession, Opened, PermitKeys, SessionUse, TakenPermits,
    Tried, Turn,
};
use crate::background;
use crate::clock::Timestamp;
use crate::providers::kit::fault::unanswered;
use crate::providers::kit::session::Liveness;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind};

type Ping = Signal<Result<Timestamp, LockError>>;

/// A session of the background runtime.
pub(super) struct Session<S: LockSession> {
    /// The session as the database knows it.
    pub(super) client: S,
    pub(super) backend: BackendOf<S>,
    usage: SessionUse,
    /// How long the server keeps it while it is idle, in nanoseconds.
    lease: AtomicU64,
    /// When it was last asked for a lock, or to release one.
    used_at: AtomicU64,
    /// The request by which it shows that it lives, while that is not answered.
    ping: Mutex<Option<Arc<Ping>>>,
    /// A request has gone unanswered, and nothing has been answered since.
    unresponsive: AtomicBool,
    waiting: AtomicBool,
    /// How many wait for notices on it.
    listeners: AtomicUsize,
}

impl<S: LockSession> Session<S> {
    pub(super) fn new(opened: Opened<S>, usage: SessionUse) -> Arc<Self> {
        let opened_at = opened.client.activity().confirmed_at();
        Arc::new(Self {
            client: opened.client,
            backend: opened.backend,
            usage,
            lease: AtomicU64::new(nanos(opened.lease)),
            used_at: AtomicU64::new(opened_at.as_nanos()),
            ping: Mutex::default(),
            unresponsive: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            listeners: AtomicUsize::new(0),
        })
    }

    /// Returns until when it lives.
    pub(super) fn liveness(&self) -> &Arc<Liveness<S::Key>> {
        self.client.liveness()
    }

    /// Gives it up, and with it all of its locks.
    pub(super) fn end(&self, why: &str) {
        self.liveness().end(why);
    }

    /// Says whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.liveness().has_ended()
    }

    /// Returns how long the server keeps it while it is idle.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_nanos(self.lease.load(Ordering::Relaxed))
    }

    /// Says whether a lock of this lease may be on it: it is kept for as long, and not for much
    /// longer.
    pub(super) fn serves(&self, lease: Duration) -> bool {
        let kept_for = self.lease();
        lease <= kept_for && kept_for <= lease * 2
    }

    /// Has the server keep it for this long, if that is longer.
    pub(super) async fn keep_for(&self, lease: Duration) -> Answer<S, ()> {
        if lease > self.lease() {
            self.client.keep_for(lease).await?;
            self.lease.fetch_max(nanos(lease), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns what tells it from other sessions, for as long as somebody has it.
    pub(super) fn number(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Tries the lock.
    pub(super) fn try_lock(
        &self,
        key: S::Key,
        access: Access,
    ) -> impl Future<Output = Answer<S, Tried>> + Send {
        self.mark_used();
        self.client.try_lock(key, access)
    }

    /// Says whether nobody waits for a lock that is shared; see [`LockSession::is_shareable`].
    pub(super) fn is_shareable(&self, key: S::Key) -> impl Future<Output = Answer<S, bool>> + Send {
        self.mark_used();
        self.client.is_shareable(key)
    }

    /// Waits for the lock, as long as it takes; see [`LockSession::lock`].
    pub(super) async fn lock(&self, key: S::Key, access: Access, idle: Duration) -> Answer<S, ()> {
        self.waiting.store(true, Ordering::Relaxed);
        let _waiting = Reset(&self.waiting);
        self.mark_used();
        self.client.lock(key, access, idle).await
    }

    /// Claims what it has waited for, and is kept for this lease from then on.
    pub(super) fn claim(&self, lease: Duration) -> impl Future<Output = Answer<S, Granted>> + Send {
        self.lease.store(nanos(lease), Ordering::Relaxed);
        self.client.claim(lease)
    }

    /// Releases the lock; false if the session did not hold it.
    pub(super) fn unlock(
        &self,
        key: S::Key,
        access: Access,
    ) -> impl Future<Output = Answer<S, bool>> + Send {
        self.mark_used();
        self.client.unlock(key, access)
    }

    /// Releases the lock and tries it again; see [`LockSession::relock`].
    pub(super) fn relock(
        &self,
        key: S::Key,
        from: Access,
        to: Access,
    ) -> impl Future<Output = Answer<S, (bool, Tried)>> + Send {
        self.mark_used();
        self.client.relock(key, from, to)
    }

    /// Takes permits; see [`LockSession::try_permits`].
    pub(super) fn try_permits(
        &self,
        keys: PermitKeys<S::Key>,
        permits: &[S::Key],
        most: usize,
        turn: Turn,
    ) -> impl Future<Output = Answer<S, Option<TakenPermits<S::Key>>>> + Send {
        self.mark_used();
        self.client.try_permits(keys, permits, most, turn)
    }

    /// Releases permits, and says how many of them the session had.
    pub(super) fn unlock_permits(
        &self,
        keys: PermitKeys<S::Key>,
        permits: &[S::Key],
    ) -> impl Future<Output = Answer<S, usize>> + Send {
        self.mark_used();
        self.client.unlock_permits(keys, permits)
    }

    fn mark_used(&self) {
        self.used_at
            .store(Timestamp::now().as_nanos(), Ordering::Relaxed);
    }

    /// Makes sure that the server knows the session to be alive, and says since when it does. Calls
    /// at the same time share one request. Its answer counts even if it comes when nobody waits for
    /// it any more, and the next call has it.
    pub(super) async fn confirm(
        self: &Arc<Self>,
        patience: Duration,
    ) -> Result<Timestamp, LockError> {
        let (activity, recently) = (self.client.activity(), self.lease() / 10);
        let confirmed_at = activity.confirmed_at();
        if !(confirmed_at + recently).has_passed() || !(activity.heard_at() + recently).has_passed()
        {
            return Ok(confirmed_at);
        }
        let ping = self.ping();
        match tokio::time::timeout(patience, ping.wait()).await {
            Ok(answer) => answer.clone(),
            Err(_) => Err(self.unanswered(patience)),
        }
    }

    /// Returns the request under way, or a new one.
    fn ping(self: &Arc<Self>) -> Arc<Ping> {
        let mut slot = self.ping_slot();
        if let Some(ping) = &*slot {
            return Arc::clone(ping);
        }
        let ping = Arc::new(Ping::new());
        *slot = Some(Arc::clone(&ping));
        let (session, answered) = (Arc::clone(self), Arc::clone(&ping));
        background::spawn_beside(async move {
            // An answer that takes as long as a lease is worth nothing.
            let asked = tokio::time::timeout(session.lease(), session.client.ping()).await;
            let answer = match asked {
                Ok(Ok(sent_at)) => {
                    session.unresponsive.store(false, Ordering::Relaxed);
                    Ok(sent_at)
                }
                Ok(Err(error)) => Err(session.explain(error)),
                Err(_) => Err(session.unanswered(session.lease())),
            };
            *session.ping_slot() = None;
            answered.set(answer);
        });
        ping
    }

    fn ping_slot(&self) -> MutexGuard<'_, Option<Arc<Ping>>> {
        self.ping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the answer to a request that must be quick. Without one, the session is not to be
    /// used for new locks until it answers again.
    pub(super) async fn within<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = Answer<S, T>>,
    ) -> Result<T, LockError> {
        match tokio::time::timeout(patience, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(error)),
            Err(_) => Err(self.unanswered(patience)),
        }
    }

    fn unanswered(&self, patience: Duration) -> LockError {
        self.unresponsive.store(true, Ordering::Relaxed);
        unanswered(patience)
    }

    /// Makes the library's error, with why the session ended if that is what happened.
    pub(super) fn explain(&self, error: S::Error) -> LockError {
        match self.liveness().why_ended() {
            Some(why) if !error.is_from_server() => {
                LockError::new(LockErrorKind::ProviderUnavailable).with_detail(why.to_string())
            }
            _ => error.into_lock_error(),
        }
    }

    /// Returns since when the server knows the session to be alive.
    pub(super) fn confirmed_at(&self) -> Timestamp {
        self.client.activity().confirmed_at()
    }

    /// Says whether a whole lease has passed since the last answer. The answer to a long wait is
    /// later than any time at which a request was sent that it confirms.
    pub(super) fn is_silent(&self) -> bool {
        (self.client.activity().heard_at() + self.lease()).has_passed()
    }

    /// Says whether it can be asked for a new lock.
    pub(super) fn is_usable(&self) -> bool {
        !self.has_ended() && !self.unresponsive.load(Ordering::Relaxed)
    }

    /// Says whether it waits for a lock in the server's queue.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Says whether it is one of those that wait for one lock.
    pub(super) fn is_of_one_lock(&self) -> bool {
        self.usage == SessionUse::OneLock
    }

    /// Returns how many requests are under way on it.
    pub(super) fn requests_under_way(&self) -> u32 {
        self.client.activity().requests_under_way()
    }

    /// Counts one more that waits for notices on it.
    pub(super) fn add_listener(&self) {
        self.listeners.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less that waits for notices on it.
    pub(super) fn remove_listener(&self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }

    /// Says whether nobody would lose anything by its end.
    pub(super) fn is_dispensable(&self) -> bool {
        self.liveness().has_no_locks() && self.listeners.load(Ordering::Relaxed) == 0
    }

    /// Says whether nobody needs it, and nobody has needed it for this long.
    pub(super) fn is_unused_for(&self, span: Duration) -> bool {
        let used_at = Timestamp::from_nanos(self.used_at.load(Ordering::Relaxed));
        self.requests_under_way() == 0 && self.is_dispensable() && (used_at + span).has_passed()
    }

    /// Says whether this session can be asked about that one: a process's number means something on
    /// its own server only.
    pub(super) fn knows(&self, other: BackendOf<S>) -> bool {
        self.backend.server == other.server
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

struct Reset<'a>(&'a AtomicBool);

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
