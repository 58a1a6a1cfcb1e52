//! One session of the server: what is asked on it, and until when it is known to live.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OnceCell};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::error::{is_cancelled, lock_error, unanswered};
use super::key::{AdvisoryKey, Keys};
use super::life::Life;
use super::opening::Opened;
use super::server::Backend;
use super::statements::{
    CANCEL, ENROL, HAS, HELD, HOLDERS, KEEP_FOR, LEAVE, LOCK, NOBODY, OTHERS_WAIT, PING, RELOCK,
    STATEMENTS, Sql, TERMINATE, TOKEN, TRY, UNLOCK, UNLOCK_ALL, WAITS, text,
};
use crate::clock::Timestamp;
use crate::race::both;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind};

type Ping = Signal<Result<Timestamp, LockError>>;
pub(super) type Answer<T> = Result<T, tokio_postgres::Error>;

/// A session, of the keeper's runtime. Its locks live as long as it does.
pub(super) struct Session {
    client: Client,
    pub(super) backend: Backend,
    /// What the session is marked with on the server.
    mark: String,
    /// What is added to the number that the server answers to make a token.
    token_base: i64,
    gives_tokens: bool,
    /// How long the server keeps it while it is idle, in nanoseconds.
    lease: AtomicU64,
    pub(super) life: Arc<Life>,
    prepared: [OnceCell<Statement>; STATEMENTS],
    /// The server has answered something that was sent then.
    confirmed_at: AtomicU64,
    /// When its last answer came.
    heard_at: AtomicU64,
    used_at: AtomicU64,
    under_way: AtomicU32,
    /// The request by which it shows that it lives, while that is not answered.
    ping: Mutex<Option<Arc<Ping>>>,
    doubtful: AtomicBool,
    waiting: AtomicBool,
    /// It waits for one lock, and then holds it.
    of_one_lock: bool,
}

/// What became of a try.
pub(super) enum Tried {
    Granted(Granted),
    /// Somebody has the lock; and whether others wait for a notice of its release.
    Held {
        others_wait: bool,
    },
}

/// What another session sees of one that waits.
pub(super) struct Seen {
    /// The server has it in a queue.
    pub(super) waits: bool,
    /// Somebody waits for the end of its snapshot.
    pub(super) is_in_the_way: bool,
}

/// A lock that the server has granted.
pub(super) struct Granted {
    /// When it, or its token, was asked for.
    pub(super) sent_at: Timestamp,
    pub(super) token: Option<u64>,
}

impl Session {
    pub(super) fn new(opened: Opened, of_one_lock: bool) -> Arc<Self> {
        Arc::new(Self {
            client: opened.client,
            backend: opened.backend,
            mark: opened.mark,
            token_base: opened.token_base,
            gives_tokens: opened.gives_tokens,
            lease: AtomicU64::new(nanos(opened.lease)),
            life: opened.life,
            prepared: Default::default(),
            confirmed_at: AtomicU64::new(opened.sent_at.as_nanos()),
            heard_at: AtomicU64::new(opened.sent_at.as_nanos()),
            used_at: AtomicU64::new(opened.sent_at.as_nanos()),
            under_way: AtomicU32::new(0),
            ping: Mutex::default(),
            doubtful: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            of_one_lock,
        })
    }

    /// How long the server keeps it while it is idle.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_nanos(self.lease.load(Ordering::Relaxed))
    }

    /// Whether a lock of this lease may be on it: it is kept for as long, and not for much longer.
    pub(super) fn serves(&self, lease: Duration) -> bool {
        let kept_for = self.lease();
        lease <= kept_for && kept_for <= lease * 2
    }

    /// Has the server keep it for this long, if that is longer.
    pub(super) async fn keep_for(&self, lease: Duration) -> Answer<()> {
        if lease > self.lease() {
            self.ask(KEEP_FOR, &[&milliseconds(lease)]).await?;
            self.lease.fetch_max(nanos(lease), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Tries the lock.
    pub(super) async fn try_lock(&self, keys: Keys) -> Answer<Tried> {
        let (sent_at, row) = self.ask_of_keys(TRY, keys, &keys.waiters).await?;
        self.check(&row);
        self.tried(sent_at, row.try_get(1)?)
    }

    fn tried(&self, sent_at: Timestamp, answer: i64) -> Answer<Tried> {
        Ok(match answer {
            HELD => Tried::Held { others_wait: false },
            OTHERS_WAIT => Tried::Held { others_wait: true },
            number => Tried::Granted(Granted {
                sent_at,
                token: self.token_of(number),
            }),
        })
    }

    /// Waits for the lock, as long as it takes; nothing else can be asked meanwhile. From then on
    /// the server keeps the session for `idle` only, until its lock is claimed.
    pub(super) async fn lock(&self, keys: Keys, idle: Duration) -> Answer<()> {
        self.waiting.store(true, Ordering::Relaxed);
        let _waiting = Reset(&self.waiting);
        let idle = milliseconds(idle);
        self.ask_of_keys(LOCK, keys, &idle).await.map(drop)
    }

    /// Releases the lock, and tells those who wait for a notice; false if the session did not hold
    /// it.
    pub(super) async fn unlock(&self, keys: Keys) -> Answer<bool> {
        let (_, row) = self.ask_of_keys(UNLOCK, keys, &keys.waiters).await?;
        row.try_get(0)
    }

    /// Releases whatever it holds, after a cancellation that may hit this request too.
    pub(super) async fn unlock_all_after_cancel(&self) -> Answer<()> {
        match self.ask(UNLOCK_ALL, &[]).await {
            Err(error) if is_cancelled(&error) => self.ask(UNLOCK_ALL, &[]).await.map(drop),
            answer => answer.map(drop),
        }
    }

    /// Releases the lock and tries it again, in one round trip: who waits for it on the server comes
    /// first, and who waits for a notice has the next try. Whether it was held, and what became of
    /// the try.
    pub(super) async fn relock(&self, keys: Keys) -> Answer<(bool, Tried)> {
        let (sent_at, row) = self.ask_of_keys(RELOCK, keys, &keys.waiters).await?;
        self.check(&row);
        Ok((row.try_get(1)?, self.tried(sent_at, row.try_get(2)?)?))
    }

    /// What the grant of a lock that was waited for says: that the session lives since a time later
    /// than the grant, and the token. The server keeps it for the lease again.
    pub(super) async fn token(&self, lease: Duration) -> Answer<Granted> {
        self.lease.store(nanos(lease), Ordering::Relaxed);
        let (sent_at, row) = self.ask(TOKEN, &[&milliseconds(lease)]).await?;
        self.check(&row);
        let token = self.token_of(row.try_get(1)?);
        Ok(Granted { sent_at, token })
    }

    /// Has notices of this lock's release sent from here on: whoever releases it sees that somebody
    /// waits. False if that could not be seen to just now.
    pub(super) async fn enrol(&self, keys: Keys) -> Answer<bool> {
        let listen = format!("LISTEN {}", keys.channel());
        let (listens, enrolled) = both(
            self.client.batch_execute(&listen),
            self.ask(ENROL, &[&keys.waiters]),
        )
        .await;
        listens?;
        enrolled?.1.try_get(0)
    }

    /// Whether nobody waits for notices of this lock; and nobody has looked at the same moment.
    pub(super) async fn nobody_waits(&self, keys: Keys) -> Answer<bool> {
        self.ask(NOBODY, &[&keys.waiters]).await?.1.try_get(0)
    }

    /// Ends that, unless another waiter has taken over these `notices`.
    pub(super) async fn leave(
        &self,
        keys: Keys,
        notices: &Arc<Notify>,
        is_seen: bool,
    ) -> Answer<()> {
        let unlisten = async {
            // Both in one step, so that a `LISTEN` of the next one comes after it.
            match self.life.hear_no_more(keys.waiters, notices) {
                true => {
                    let unlisten = format!("UNLISTEN {}", keys.channel());
                    self.client.batch_execute(&unlisten).await
                }
                false => Ok(()),
            }
        };
        let leave = async {
            match is_seen {
                true => self.ask(LEAVE, &[&keys.waiters]).await.map(drop),
                false => Ok(()),
            }
        };
        let (unlistened, left) = both(unlisten, leave).await;
        left.and(unlistened)
    }

    /// Cancels what another session is doing; false if it is gone.
    pub(super) async fn cancel(&self, other: Backend) -> Answer<bool> {
        self.ask_of_backend(CANCEL, other).await
    }

    /// Ends another session; false if it is gone.
    pub(super) async fn terminate(&self, other: Backend) -> Answer<bool> {
        self.ask_of_backend(TERMINATE, other).await
    }

    /// Looks whether another session is waiting for a lock, and whether somebody waits for it.
    pub(super) async fn look_at(&self, other: Backend) -> Answer<Seen> {
        let (_, row) = self.ask(WAITS, &[&other.pid, &other.started]).await?;
        Ok(Seen {
            waits: row.try_get::<_, i64>(0)? > 0,
            is_in_the_way: row.try_get(1)?,
        })
    }

    /// Makes sure that the server knows the session to be alive, and says since when it does. Calls
    /// at the same time share one request; its answer counts even if it comes when nobody waits for
    /// it any more, and the next call has it.
    pub(super) async fn confirm(
        self: &Arc<Self>,
        patience: Duration,
    ) -> Result<Timestamp, LockError> {
        let (confirmed_at, recently) = (self.confirmed_at(), self.lease() / 10);
        if !(confirmed_at + recently).has_passed() || !(self.heard_at() + recently).has_passed() {
            return Ok(confirmed_at);
        }
        let ping = self.ping();
        match tokio::time::timeout(patience, ping.wait()).await {
            Ok(answer) => answer.clone(),
            Err(_) => Err(self.unanswered(patience)),
        }
    }

    /// The one under way, or a new one.
    fn ping(self: &Arc<Self>) -> Arc<Ping> {
        let mut slot = self.ping_slot();
        if let Some(ping) = &*slot {
            return Arc::clone(ping);
        }
        let ping = Arc::new(Ping::new());
        *slot = Some(Arc::clone(&ping));
        let (session, answered) = (Arc::clone(self), Arc::clone(&ping));
        tokio::spawn(async move {
            // An answer that takes as long as a lease is worth nothing.
            let asked = tokio::time::timeout(session.lease(), session.ask(PING, &[])).await;
            let answer = match asked {
                Ok(Ok((sent_at, row))) => {
                    session.check(&row);
                    if row.try_get(1).unwrap_or(false) {
                        session.life.end("the server has become a standby");
                    }
                    session.doubtful.store(false, Ordering::Relaxed);
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

    /// The answer to a request that must be quick. Without one, the session is not to be used for
    /// new locks until it answers again.
    pub(super) async fn within<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = Answer<T>>,
    ) -> Result<T, LockError> {
        match tokio::time::timeout(patience, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(error)),
            Err(_) => Err(self.unanswered(patience)),
        }
    }

    fn unanswered(&self, patience: Duration) -> LockError {
        self.doubtful.store(true, Ordering::Relaxed);
        unanswered(patience)
    }

    /// The error, with why the session ended if that is what happened.
    pub(super) fn explain(&self, error: tokio_postgres::Error) -> LockError {
        match self.life.why_ended() {
            Some(why) if error.code().is_none() => {
                LockError::new(LockErrorKind::ProviderUnavailable).with_detail(why.to_string())
            }
            _ => lock_error(error),
        }
    }

    pub(super) fn confirmed_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.confirmed_at.load(Ordering::Relaxed))
    }

    /// Whether a whole lease has passed since the last answer. One that has just waited for long was
    /// heard of later than of any request that it confirms.
    pub(super) fn is_silent(&self) -> bool {
        (self.heard_at() + self.lease()).has_passed()
    }

    fn heard_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.heard_at.load(Ordering::Relaxed))
    }

    /// Whether it can be asked for a new lock.
    pub(super) fn is_usable(&self) -> bool {
        !self.life.has_ended() && !self.doubtful.load(Ordering::Relaxed)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether it is one of those that wait for one lock.
    pub(super) fn is_of_one_lock(&self) -> bool {
        self.of_one_lock
    }

    pub(super) fn requests_under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether it holds nothing, and has held nothing for this long.
    pub(super) fn is_unused_for(&self, span: Duration) -> bool {
        let used_at = Timestamp::from_nanos(self.used_at.load(Ordering::Relaxed));
        self.requests_under_way() == 0 && self.life.holds_nothing() && (used_at + span).has_passed()
    }

    fn token_of(&self, number: i64) -> Option<u64> {
        let token = self.token_base.saturating_add(number);
        self.gives_tokens.then(|| token.try_into().unwrap_or(0))
    }

    pub(super) fn gives_tokens(&self) -> bool {
        self.gives_tokens
    }

    /// Whether that session has this lock on the server.
    pub(super) async fn sees_held(&self, keys: Keys, by: Backend) -> Answer<bool> {
        let (high, low, form) = keys.lock.in_pg_locks();
        let (pid, started) = (by.pid, by.started);
        let asked = self.ask(HAS, &[&pid, &started, &high, &low, &form]).await;
        asked?.1.try_get(0)
    }

    /// Which processes of the server have this lock.
    pub(super) async fn holders(&self, keys: Keys) -> Answer<Vec<i32>> {
        let (high, low, form) = keys.lock.in_pg_locks();
        let asked = self.ask(HOLDERS, &[&high, &low, &form]).await;
        asked?.1.try_get(0)
    }

    async fn ask_of_keys(
        &self,
        statement: Sql,
        keys: Keys,
        other: &(dyn ToSql + Sync),
    ) -> Answer<(Timestamp, Row)> {
        self.used_at
            .store(Timestamp::now().as_nanos(), Ordering::Relaxed);
        let statement = of_key(statement, keys.lock);
        match keys.lock {
            AdvisoryKey::Int8(key) => self.ask(statement, &[&key, other]).await,
            AdvisoryKey::Int4Pair(high, low) => self.ask(statement, &[&high, &low, other]).await,
        }
    }

    /// Whether this session can be asked about that one: a process's number means something on its own
    /// server only.
    pub(super) fn knows(&self, other: Backend) -> bool {
        self.backend.server == other.server
    }

    async fn ask_of_backend(&self, statement: Sql, other: Backend) -> Answer<bool> {
        let asked = self.ask(statement, &[&other.pid, &other.started]).await;
        let count: i64 = asked?.1.try_get(0)?;
        Ok(count > 0)
    }

    async fn ask(
        &self,
        statement: Sql,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Answer<(Timestamp, Row)> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let _done = Decrement(&self.under_way);
        let prepared = self.prepare(statement).await?;
        let sent_at = Timestamp::now();
        let row = self.client.query_one(prepared, parameters).await?;
        self.heard_at
            .store(Timestamp::now().as_nanos(), Ordering::Relaxed);
        self.confirmed_at
            .fetch_max(sent_at.as_nanos(), Ordering::Relaxed);
        Ok((sent_at, row))
    }

    async fn prepare(&self, statement: Sql) -> Answer<&Statement> {
        let preparing = || async {
            self.client
                .prepare(&text(statement, self.gives_tokens))
                .await
        };
        self.prepared[statement.0].get_or_try_init(preparing).await
    }

    /// A pooler that changes the server's session under ours makes all locks worthless: the first
    /// column is the session's mark.
    fn check(&self, row: &Row) {
        if row.try_get::<_, Option<&str>>(0).ok().flatten() != Some(&*self.mark) {
            self.life
                .end("a connection pooler has exchanged the session on the server");
        }
    }
}

fn of_key(statement: Sql, key: AdvisoryKey) -> Sql {
    match key {
        AdvisoryKey::Int8(_) => statement,
        AdvisoryKey::Int4Pair(..) => Sql(statement.0 + 1),
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// As a setting takes them, rounded up.
pub(super) fn milliseconds(span: Duration) -> String {
    span.as_nanos().div_ceil(1_000_000).to_string()
}

struct Decrement<'a>(&'a AtomicU32);

impl Drop for Decrement<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Reset<'a>(&'a AtomicBool);

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
