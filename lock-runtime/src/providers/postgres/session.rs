//! One session of the server: what is asked on it, until when it is known to live, and who has to
//! hear of its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, OwnedSemaphorePermit};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::error::{is_cancelled, lock_error, unanswered};
use super::key::AdvisoryKey;
use crate::clock::Timestamp;
use crate::provider::LossReporter;
use crate::race::both;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind};

type Answer<T> = Result<T, tokio_postgres::Error>;

/// A session, of the keeper's runtime. Its locks live as long as it does.
pub(super) struct Session {
    client: Client,
    /// The server's process.
    pub(super) pid: i32,
    /// What is added to a transaction's number to make a token.
    token_base: u64,
    pub(super) lease: Duration,
    pub(super) life: Arc<Life>,
    prepared: [OnceCell<Statement>; SQL.len()],
    /// The server has answered something that was sent then.
    confirmed_at: AtomicU64,
    used_at: AtomicU64,
    under_way: AtomicU32,
    confirming: tokio::sync::Mutex<()>,
    doubtful: AtomicBool,
    waiting: AtomicBool,
    /// Of a session that waits for one lock, and then holds it.
    place: Option<OwnedSemaphorePermit>,
}

/// What the task that drives the connection shares with the session.
#[derive(Default)]
pub(super) struct Life {
    ended: Ended,
    holds: Mutex<HashMap<AdvisoryKey, LossReporter>>,
}

struct Ended(Signal<Arc<str>>);

impl Default for Ended {
    fn default() -> Self {
        Self(Signal::new())
    }
}

/// What was opened.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) pid: i32,
    pub(super) token_base: u64,
    pub(super) lease: Duration,
    pub(super) life: Arc<Life>,
    pub(super) sent_at: Timestamp,
}

/// Statements, each for both forms of key where it has one. They are prepared when first needed.
const SQL: [&str; 11] = [
    // `CASE` evaluates in order: the token is younger than the lock, and a lock that was not to be
    // had costs no transaction number.
    "SELECT pg_backend_pid(), \
     CASE WHEN pg_try_advisory_lock($1) THEN pg_current_xact_id()::text::int8 END",
    "SELECT pg_backend_pid(), \
     CASE WHEN pg_try_advisory_lock($1, $2) THEN pg_current_xact_id()::text::int8 END",
    "SELECT pg_advisory_unlock($1)",
    "SELECT pg_advisory_unlock($1, $2)",
    "SELECT 1 FROM pg_advisory_lock($1)",
    "SELECT 1 FROM pg_advisory_lock($1, $2)",
    "SELECT pg_backend_pid(), pg_current_xact_id()::text::int8",
    "SELECT pg_backend_pid()",
    "SELECT pg_cancel_backend($1)",
    "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)",
    "SELECT 1 FROM pg_advisory_unlock_all()",
];
const TRY: usize = 0;
const UNLOCK: usize = 2;
const LOCK: usize = 4;
const TOKEN: usize = 6;
const PING: usize = 7;
const CANCEL: usize = 8;
const WAITS: usize = 9;
const UNLOCK_ALL: usize = 10;

impl Session {
    pub(super) fn new(opened: Opened, place: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self {
            client: opened.client,
            pid: opened.pid,
            token_base: opened.token_base,
            lease: opened.lease,
            life: opened.life,
            prepared: Default::default(),
            confirmed_at: AtomicU64::new(opened.sent_at.as_nanos()),
            used_at: AtomicU64::new(opened.sent_at.as_nanos()),
            under_way: AtomicU32::new(0),
            confirming: tokio::sync::Mutex::default(),
            doubtful: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            place,
        })
    }

    /// Tries the lock: when it was asked for, and the token if it was granted.
    pub(super) async fn try_lock(&self, key: AdvisoryKey) -> Answer<(Timestamp, Option<i64>)> {
        let (sent_at, row) = self.ask_of_key(TRY, key).await?;
        self.check_pid(&row);
        Ok((sent_at, row.try_get(1)?))
    }

    /// Waits for the lock, as long as it takes; nothing else can be asked meanwhile.
    pub(super) async fn lock(&self, key: AdvisoryKey) -> Answer<()> {
        self.waiting.store(true, Ordering::Relaxed);
        let _waiting = Reset(&self.waiting);
        self.ask_of_key(LOCK, key).await.map(drop)
    }

    /// Releases the lock; false if the session did not hold it.
    pub(super) async fn unlock(&self, key: AdvisoryKey) -> Answer<bool> {
        let (_, row) = self.ask_of_key(UNLOCK, key).await?;
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
    /// first.
    pub(super) async fn relock(
        &self,
        key: AdvisoryKey,
    ) -> Answer<(bool, (Timestamp, Option<i64>))> {
        // Were it prepared only now, the second request could overtake it.
        let unlock = match key {
            AdvisoryKey::Int8(_) => UNLOCK,
            AdvisoryKey::Int4Pair(..) => UNLOCK + 1,
        };
        self.prepare(unlock).await?;
        let (unlocked, tried) = both(self.unlock(key), self.try_lock(key)).await;
        Ok((unlocked?, tried?))
    }

    /// A token, and when it was asked for: later than the lock was granted.
    pub(super) async fn token(&self) -> Answer<(Timestamp, i64)> {
        let (sent_at, row) = self.ask(TOKEN, &[]).await?;
        self.check_pid(&row);
        Ok((sent_at, row.try_get(1)?))
    }

    /// Cancels what another session of this provider is doing; false if it is gone.
    pub(super) async fn cancel(&self, pid: i32) -> Answer<bool> {
        self.ask(CANCEL, &[&pid]).await?.1.try_get(0)
    }

    /// Whether another session is waiting for a lock.
    pub(super) async fn sees_waiting(&self, pid: i32) -> Answer<bool> {
        self.ask(WAITS, &[&pid]).await?.1.try_get(0)
    }

    /// Makes sure that the server knows the session to be alive, and says since when it does. Calls
    /// at the same time share one request.
    pub(super) async fn confirm(&self, patience: Duration) -> Result<Timestamp, LockError> {
        let _one = self.confirming.lock().await;
        let last = self.confirmed_at();
        if !(last + self.lease / 10).has_passed() {
            return Ok(last);
        }
        let (sent_at, row) = self.within(patience, self.ask(PING, &[])).await?;
        self.check_pid(&row);
        self.doubtful.store(false, Ordering::Relaxed);
        Ok(sent_at)
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
            Err(_) => {
                self.doubtful.store(true, Ordering::Relaxed);
                Err(unanswered(patience))
            }
        }
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

    pub(super) fn fencing_token(&self, transaction: i64) -> u64 {
        self.token_base.saturating_add(transaction.unsigned_abs())
    }

    pub(super) fn confirmed_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.confirmed_at.load(Ordering::Relaxed))
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
        self.place.is_some()
    }

    pub(super) fn requests_under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether it holds nothing, and has held nothing for this long.
    pub(super) fn is_unused_for(&self, span: Duration) -> bool {
        let used_at = Timestamp::from_nanos(self.used_at.load(Ordering::Relaxed));
        self.requests_under_way() == 0
            && self.life.holds().is_empty()
            && (used_at + span).has_passed()
    }

    async fn ask_of_key(&self, statement: usize, key: AdvisoryKey) -> Answer<(Timestamp, Row)> {
        self.used_at
            .store(Timestamp::now().as_nanos(), Ordering::Relaxed);
        match key {
            AdvisoryKey::Int8(key) => self.ask(statement, &[&key]).await,
            AdvisoryKey::Int4Pair(high, low) => self.ask(statement + 1, &[&high, &low]).await,
        }
    }

    async fn ask(
        &self,
        statement: usize,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Answer<(Timestamp, Row)> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let _done = Decrement(&self.under_way);
        let prepared = self.prepare(statement).await?;
        let sent_at = Timestamp::now();
        let row = self.client.query_one(prepared, parameters).await?;
        self.confirmed_at
            .fetch_max(sent_at.as_nanos(), Ordering::Relaxed);
        Ok((sent_at, row))
    }

    async fn prepare(&self, statement: usize) -> Answer<&Statement> {
        let preparing = || self.client.prepare(SQL[statement]);
        self.prepared[statement].get_or_try_init(preparing).await
    }

    /// A pooler that changes the server's session under ours makes all locks worthless.
    fn check_pid(&self, row: &Row) {
        if row.try_get::<_, i32>(0).ok() != Some(self.pid) {
            self.life
                .end("a connection pooler has exchanged the session on the server");
        }
    }
}

impl Life {
    /// From here on, the end of the session is the loss of this lock; false if it has ended.
    pub(super) fn hold(&self, key: AdvisoryKey, loss: LossReporter) -> bool {
        let mut holds = self.holds();
        // Looked at under the lock that whoever ends it takes afterwards.
        let alive = !self.has_ended();
        if alive {
            holds.insert(key, loss);
        }
        alive
    }

    /// The end of the session is not the loss of this lock any more.
    pub(super) fn let_go(&self, key: AdvisoryKey) {
        self.holds().remove(&key);
    }

    /// Ends the session, and with it all of its locks.
    pub(super) fn end(&self, why: &str) {
        if self.ended.0.set(why.into()) {
            let holds = std::mem::take(&mut *self.holds());
            for loss in holds.into_values() {
                loss.report(why);
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.0.get().is_some()
    }

    pub(super) fn why_ended(&self) -> Option<&str> {
        self.ended.0.get().map(|why| &**why)
    }

    pub(super) async fn ended(&self) {
        self.ended.0.wait().await;
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<AdvisoryKey, LossReporter>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
