//! What a database server must be able to do for its sessions to hold locks.

use std::fmt::Display;
use std::future::ready;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::activity::Activity;
use super::bounds::{Capacity, SessionPermit};
use super::fault::{ClientError, Refusal};
use super::server::{Backend, Server};
use super::settings::Settings;
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::LockKind;
use crate::providers::kit::session::Liveness;

/// One session of a database server that has named locks. Its locks live as long as it does.
///
/// The requests of one session are carried out in the order in which they are asked for. A request
/// whose future is dropped may be carried out all the same.
///
/// Every request is counted with [`Activity::begin`], and its answer noted by what that returns.
///
/// What a server lacks has a default: [fencing tokens](Self::gives_tokens), [notices of a
/// release](Self::register_waiter), and a session's view of [another one](Self::cancel).
pub(crate) trait LockSession: Sized + Send + Sync + 'static {
    /// What the provider calls itself.
    const PROVIDER: &'static str;

    /// How to connect, and what else is set that only this server knows.
    type Target: Send + Sync + 'static;
    /// What the server calls a lock.
    type Key: Copy + Eq + Hash + Send + Sync + 'static;
    /// The number of the server's process that serves a session.
    type Pid: Copy + Eq + Display + Send + Sync + 'static;
    /// An error of the client's.
    type Error: ClientError;

    /// Returns the key of the lock with this name. The name comes with the provider's prefix.
    fn key(name: &str) -> Self::Key;

    /// Checks, before the first session is opened, what a session cannot see of itself: by default
    /// nothing. A pooler that exchanges sessions is found here.
    fn check_server(
        settings: &SettingsOf<Self>,
    ) -> impl Future<Output = Result<(), LockError>> + Send {
        let _ = settings;
        ready(Ok(()))
    }

    /// Opens a session that the server ends when it has been idle for a lease. The connection
    /// keeps the permit for as long as it is there.
    fn open(
        settings: &SettingsOf<Self>,
        lease: Duration,
        usage: SessionUse,
        permit: SessionPermit,
    ) -> impl Future<Output = Result<Opened<Self>, LockError>> + Send;

    /// Looks which server the name leads to now.
    ///
    /// # Errors
    ///
    /// Also if it is a standby, which shows nothing: it may be on its way to become the primary.
    fn look(settings: &SettingsOf<Self>) -> impl Future<Output = Result<Server, LockError>> + Send;

    /// Says what a server that is up has refused with this error. By default no error is told from
    /// that of a server that is not up.
    fn refusal(error: &LockError) -> Option<Refusal> {
        let _ = error;
        None
    }

    /// Returns until when the session lives.
    fn liveness(&self) -> &Arc<Liveness<Self::Key>>;

    /// Returns what the session has been asked.
    fn activity(&self) -> &Activity;

    /// Whether several sessions may share a lock: then there are reader–writer locks.
    const SHARES: bool = false;

    /// Whether one who shares a lock may go on to hold it alone, before those who wait.
    const UPGRADES: bool = false;
    /// Whether it can be told who holds a lock.
    const TELLS_HOLDERS: bool = false;
    /// Whether there are [semaphores](Self::try_permits).
    const HAS_PERMITS: bool = false;

    /// Says whether grants come with fencing tokens; by default they do not.
    fn gives_tokens(&self) -> bool {
        false
    }

    /// Returns the key of the right to hold the lock of this name alone after having shared it.
    fn upgrade_key(name: &str) -> Self::Key {
        Self::key(name)
    }

    /// Returns who holds the lock of this name, and who waits for it.
    fn parties(
        &self,
        name: &str,
        kind: LockKind,
    ) -> impl Future<Output = Answer<Self, Vec<Party<Self::Pid>>>> + Send {
        let _ = (name, kind);
        ready(Ok(Vec::new()))
    }

    /// Tries the lock, and says at once whether the session has it. Whoever wants to share it is
    /// refused while somebody waits for it who does not.
    fn try_lock(
        &self,
        key: Self::Key,
        access: Access,
    ) -> impl Future<Output = Answer<Self, Tried>> + Send;

    /// Tries to share the lock, past those who wait for a notice of its release and want it alone.
    fn try_lock_past_notices(
        &self,
        key: Self::Key,
    ) -> impl Future<Output = Answer<Self, Tried>> + Send {
        self.try_lock(key, Access::Shared)
    }

    /// Says whether nobody waits for the lock who wants it alone, by a try that leaves nothing.
    /// Another session shares it.
    fn is_shareable(&self, key: Self::Key) -> impl Future<Output = Answer<Self, bool>> + Send {
        async move {
            match self.try_lock(key, Access::Shared).await? {
                Tried::Granted(_) => self.unlock(key, Access::Shared).await,
                Tried::Held { .. } | Tried::BehindNotices => Ok(false),
            }
        }
    }

    /// Waits for the lock in the server's queue, as long as it takes; nothing else can be asked
    /// meanwhile. From then on the server keeps the session for `idle` only, until
    /// [`claim`](Self::claim).
    ///
    /// A session of [`SessionUse::OneLock`] may have a bound on its waits, after which this fails
    /// with an error that [ends a wait](ClientError::ends_a_wait).
    fn lock(
        &self,
        key: Self::Key,
        access: Access,
        idle: Duration,
    ) -> impl Future<Output = Answer<Self, ()>> + Send;

    /// Claims a lock that [`lock`](Self::lock) has been granted: the answer shows that the session
    /// lives since a time later than the grant, and has the token. The server keeps the session
    /// for the lease again.
    fn claim(&self, lease: Duration) -> impl Future<Output = Answer<Self, Granted>> + Send;

    /// Releases the lock, and tells all waiters that are registered by then; false if the session
    /// did not hold it.
    ///
    /// The lock is free before the server looks for waiters, and a waiter is registered before it
    /// tries the lock. So one of the two sees the other, whichever comes first.
    fn unlock(
        &self,
        key: Self::Key,
        access: Access,
    ) -> impl Future<Output = Answer<Self, bool>> + Send;

    /// Releases the lock and tries it again, perhaps in another way: whoever waits for it on the
    /// server comes first, and whoever waits for a notice has the next try. Says whether the lock
    /// was held, and what became of the try. By default it takes two requests, where one would be
    /// better.
    fn relock(
        &self,
        key: Self::Key,
        from: Access,
        to: Access,
    ) -> impl Future<Output = Answer<Self, (bool, Tried)>> + Send {
        async move {
            let was_held = self.unlock(key, from).await?;
            Ok((was_held, self.try_lock(key, to).await?))
        }
    }

    /// Releases whatever the session holds, after a cancellation that may hit this request too.
    fn unlock_all(&self) -> impl Future<Output = Answer<Self, ()>> + Send;

    /// Asks for a sign of life, and returns when it was asked for. Ends the session if its server
    /// is the primary no more.
    fn ping(&self) -> impl Future<Output = Answer<Self, Timestamp>> + Send;

    /// Has the server keep the session for this long while it is idle.
    fn keep_for(&self, lease: Duration) -> impl Future<Output = Answer<Self, ()>> + Send;

    // What one session sees of another one of the same server.

    /// Cancels what another session is doing; false if that one is gone. By default nobody can, so
    /// a session whose wait is to end is closed.
    fn cancel(&self, other: BackendOf<Self>) -> impl Future<Output = Answer<Self, bool>> + Send {
        let _ = other;
        ready(Ok(false))
    }

    /// Ends another session; false if that one is gone. By default nobody can, and the server
    /// notices by itself that a client is gone.
    fn terminate(&self, other: BackendOf<Self>) -> impl Future<Output = Answer<Self, bool>> + Send {
        let _ = other;
        ready(Ok(false))
    }

    /// Looks whether another session waits for a lock, and whether somebody waits for the end of
    /// its snapshot. The default only makes sure that the server answers.
    fn look_at(&self, other: BackendOf<Self>) -> impl Future<Output = Answer<Self, Seen>> + Send {
        let _ = other;
        async {
            self.ping().await?;
            Ok(Seen {
                waits: true,
                is_in_the_way: false,
            })
        }
    }

    /// Says whether another session may have this lock. By default every session may, until it has
    /// ended.
    fn may_be_held_by(
        &self,
        key: Self::Key,
        other: BackendOf<Self>,
    ) -> impl Future<Output = Answer<Self, bool>> + Send {
        let _ = (key, other);
        ready(Ok(true))
    }

    /// Returns the processes whose sessions have this lock; `None`, the default, if nobody can
    /// tell.
    fn holders(
        &self,
        key: Self::Key,
    ) -> impl Future<Output = Answer<Self, Option<Vec<Self::Pid>>>> + Send {
        let _ = key;
        ready(Ok(None))
    }

    // Waiting for a notice of a lock's release. By default there are none, and whoever waits so
    // tries the lock again and again.

    /// Returns where notices of this lock's release arrive from now on.
    fn subscribe(&self, key: Self::Key) -> Arc<Notices> {
        let _ = key;
        Arc::default()
    }

    /// Has notices of this lock's release sent from here on: whoever releases it sees that somebody
    /// waits. False if that could not be arranged just now. The lock is tried after this.
    fn register_waiter(
        &self,
        key: Self::Key,
        access: Access,
    ) -> impl Future<Output = Answer<Self, bool>> + Send {
        let _ = (key, access);
        ready(Ok(false))
    }

    /// Ends a registration. Ends its `notices` too, unless another waiter of this session has
    /// subscribed meanwhile. `is_registered` says whether somebody may see the waiter at all.
    fn unregister_waiter(
        &self,
        key: Self::Key,
        access: Access,
        notices: &Arc<Notices>,
        is_registered: bool,
    ) -> impl Future<Output = Answer<Self, ()>> + Send {
        let _ = (key, access, notices, is_registered);
        ready(Ok(()))
    }

    // Semaphores: each permit is a lock of its own, and whoever waits holds the turnstile. By
    // default there are none.

    /// Returns the keys of the semaphore with this name.
    fn permit_keys(name: &str) -> PermitKeys<Self::Key> {
        let key = Self::key(name);
        PermitKeys {
            asking: key,
            turnstile: key,
            released: key,
        }
    }

    /// Returns the keys of the permits with these numbers.
    fn permits(name: &str, numbers: impl Iterator<Item = u32>) -> Vec<Self::Key> {
        let _ = (name, numbers);
        Vec::new()
    }

    /// Takes some of these permits, as many as are free and at most `most`, and says which.
    /// `None` if somebody waits for permits who comes first. The session has none of them.
    fn try_permits(
        &self,
        keys: PermitKeys<Self::Key>,
        permits: &[Self::Key],
        most: usize,
        turn: Turn,
    ) -> impl Future<Output = Answer<Self, Option<TakenPermits<Self::Key>>>> + Send {
        let _ = (keys, permits, most, turn);
        ready(Ok(None))
    }

    /// Says whether somebody waits for permits, who does not only look. By default nobody can tell.
    fn turn_is_taken(
        &self,
        keys: PermitKeys<Self::Key>,
    ) -> impl Future<Output = Answer<Self, bool>> + Send {
        let _ = keys;
        ready(Ok(true))
    }

    /// Releases these permits, says how many of them the session had, and tells whoever waits.
    fn unlock_permits(
        &self,
        keys: PermitKeys<Self::Key>,
        permits: &[Self::Key],
    ) -> impl Future<Output = Answer<Self, usize>> + Send {
        let _ = (keys, permits);
        ready(Ok(0))
    }

    /// Says whether another session may have one of these permits.
    fn may_have_permits(
        &self,
        permits: &[Self::Key],
        other: BackendOf<Self>,
    ) -> impl Future<Output = Answer<Self, bool>> + Send {
        let _ = (permits, other);
        ready(Ok(true))
    }

    /// Returns the processes whose sessions have one of these permits; `None` if nobody can tell.
    fn permit_holders(
        &self,
        permits: &[Self::Key],
    ) -> impl Future<Output = Answer<Self, Option<Vec<Self::Pid>>>> + Send {
        let _ = permits;
        ready(Ok(None))
    }

    /// Has notices come of this key's releases, for a waiter that has [subscribed](Self::subscribe)
    /// and that nobody need see.
    fn listen(&self, key: Self::Key) -> impl Future<Output = Answer<Self, ()>> + Send {
        let _ = key;
        ready(Ok(()))
    }

    /// Says whether nobody waits for notices of this lock, and nobody has looked at the same
    /// moment.
    fn has_no_waiters(&self, key: Self::Key) -> impl Future<Output = Answer<Self, bool>> + Send {
        let _ = key;
        ready(Ok(true))
    }
}

/// What a session answers.
pub(crate) type Answer<S, T> = Result<T, <S as LockSession>::Error>;
/// The settings of a provider with such sessions.
pub(crate) type SettingsOf<S> = Settings<<S as LockSession>::Target>;
/// Which process of which server serves such a session.
pub(crate) type BackendOf<S> = Backend<<S as LockSession>::Pid>;

/// How a session wants a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Alone: a mutex, or a writer.
    Exclusive,
    /// Beside others who share it: a reader.
    Shared,
}

/// Where notices of a lock's release arrive for one waiter.
#[derive(Default)]
pub(crate) struct Notices {
    arrived: Notify,
    after_exclusive: AtomicBool,
}

impl Notices {
    /// Tells the waiter of a release; `after_exclusive` says that the lock was held alone.
    pub(crate) fn arrive(&self, after_exclusive: bool) {
        self.after_exclusive
            .fetch_or(after_exclusive, Ordering::Relaxed);
        self.arrived.notify_one();
    }

    /// Waits for the next notice.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Says, once, whether somebody has released the lock who held it alone.
    pub(super) fn take_after_exclusive(&self) -> bool {
        self.after_exclusive.swap(false, Ordering::Relaxed)
    }
}

/// The keys of a semaphore.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PermitKeys<K> {
    /// Stands for an acquisition inside this provider. No session is asked for it.
    pub(crate) asking: K,
    /// The lock that whoever waits for permits holds alone.
    pub(crate) turnstile: K,
    /// What its holder is told by when permits are released.
    pub(crate) released: K,
}

/// A session of anybody's that has to do with a lock.
#[derive(Debug)]
pub(crate) struct Party<P> {
    pub(crate) pid: P,
    /// What the session calls itself.
    pub(crate) label: String,
    pub(crate) part: Part,
}

/// What a session has to do with a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Waits,
    HasPermit,
    /// It shares the lock, has the right to hold it alone, or does so.
    Shares,
    MayUpgrade,
    HoldsAlone,
}

/// Who wants one permit asks for one of so many at first: a request for few costs less.
pub(crate) const FEW_PERMITS: usize = 8;

/// Whether others come first who wait for permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// They do.
    AfterOthers,
    /// They do, and nobody else may take any meanwhile: it is several permits or none.
    AfterOthersAlone,
    /// The same, and too few are not taken at all.
    AfterOthersAllOrNothing,
    /// They do not, since this process holds the turnstile.
    First,
}

/// Permits that a session has been given.
pub(crate) struct TakenPermits<K> {
    /// When they were asked for.
    pub(crate) sent_at: Timestamp,
    pub(crate) permits: Vec<K>,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionUse {
    /// It tries locks and holds many.
    Shared,
    /// It waits for one lock, and then holds it.
    OneLock,
}

/// A session that was opened.
pub(crate) struct Opened<S: LockSession> {
    pub(crate) client: S,
    pub(crate) backend: BackendOf<S>,
    /// How long the server keeps it while it is idle.
    pub(crate) lease: Duration,
    /// When the connection was begun.
    pub(crate) connected_at: Timestamp,
    pub(crate) capacity: Capacity,
}

/// What became of a try.
pub(crate) enum Tried {
    Granted(Granted),
    /// Somebody has the lock.
    Held {
        /// Others wait for a notice of its release. Whoever looks at the same time looks like them.
        others_wait: bool,
    },
    /// The lock may be shared, but somebody waits for a notice who wants it alone, and comes first.
    BehindNotices,
}

/// A lock that the server has granted.
pub(crate) struct Granted {
    /// When the lock, or its token, was asked for.
    pub(crate) sent_at: Timestamp,
    pub(crate) token: Option<u64>,
}

/// What another session sees of one that waits.
pub(crate) struct Seen {
    /// The server has it in a queue.
    pub(crate) waits: bool,
    /// Somebody waits for the end of its snapshot.
    pub(crate) is_in_the_way: bool,
}
