//! One session of the server, and what is asked on it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::error::{is_cancelled, refusal};
use super::key::{ASKING, AdvisoryKey, Keys, TURNSTILE, UPGRADE, advisory_key};
use super::notices::Waiters;
use super::settings::{Settings, Target};
use super::sql::{
    BEHIND_NOTICES, CANCEL, CLAIM, HAS_PERMITS, HELD, HOLDERS, IS_HELD_BY, IS_SHAREABLE, KEEP_FOR,
    LOCK, LOCK_SHARED, NO_WAITERS, OTHERS_WAIT, PARTIES, PERMIT_HOLDERS, PING, REGISTER_READER,
    REGISTER_WRITER, RELOCK, RELOCK_FROM_SHARED, RELOCK_SHARED, RELOCK_TO_SHARED, STATEMENTS, Sql,
    TERMINATE, TRY, TRY_ONE_PERMIT, TRY_PERMITS, TRY_SHARED, TRY_SHARED_BESIDE_WAITERS,
    TRY_SHARED_PAST_NOTICES, TURN_IS_TAKEN, UNLOCK, UNLOCK_ALL, UNLOCK_ONE_PERMIT, UNLOCK_PERMITS,
    UNLOCK_SHARED, UNREGISTER_READER, UNREGISTER_WRITER, WAITS, milliseconds, of_key, text,
};
use super::{pooler, setup};
use crate::clock::Timestamp;
use crate::future::join;
use crate::provider::LockKind;
use crate::providers::kit::session::Liveness;
use crate::providers::sql_session::{
    Access, Activity, Backend, FEW_PERMITS, Granted, LockSession, Notices, Opened, Part, Party,
    PermitKeys, Refusal, Seen, Server, SessionPermit, SessionUse, TakenPermits, Tried, Turn,
};
use crate::{LockError, sending};

type Answer<T> = Result<T, tokio_postgres::Error>;

/// How long after 1970 the server begins to count time, in microseconds.
const MICROS_FROM_1970: i64 = 946_684_800_000_000;

/// A session that is set up.
pub(super) struct PostgresSession {
    client: Client,
    /// What the session is marked with on the server.
    mark: String,
    /// What is added to the number that the server answers to make a token.
    token_base: i64,
    gives_tokens: bool,
    liveness: Arc<Liveness<Keys>>,
    notices: Arc<Waiters>,
    activity: Activity,
    prepared: [OnceCell<Statement>; STATEMENTS],
}

impl LockSession for PostgresSession {
    const PROVIDER: &'static str = "postgres";
    const SHARES: bool = true;
    const UPGRADES: bool = true;
    const TELLS_HOLDERS: bool = true;
    const HAS_PERMITS: bool = true;

    type Target = Target;
    type Key = Keys;
    type Pid = i32;
    type Error = tokio_postgres::Error;

    fn key(name: &str) -> Keys {
        Keys::of(advisory_key(name))
    }

    async fn check_server(settings: &Settings) -> Result<(), LockError> {
        pooler::refuse_pooler(settings).await
    }

    async fn open(
        settings: &Settings,
        lease: Duration,
        usage: SessionUse,
        permit: SessionPermit,
    ) -> Result<Opened<Self>, LockError> {
        let ready = setup::open(settings, lease, usage, permit).await?;
        Ok(Opened {
            client: Self {
                client: ready.client,
                mark: ready.mark,
                token_base: ready.token_base,
                gives_tokens: ready.gives_tokens,
                liveness: ready.liveness,
                notices: ready.notices,
                activity: Activity::new(ready.sent_at),
                prepared: [const { OnceCell::const_new() }; STATEMENTS],
            },
            backend: ready.backend,
            lease,
            connected_at: ready.connected_at,
            capacity: ready.capacity,
        })
    }

    async fn look(settings: &Settings) -> Result<Server, LockError> {
        setup::look(settings).await
    }

    fn refusal(error: &LockError) -> Option<Refusal> {
        refusal(error)
    }

    fn liveness(&self) -> &Arc<Liveness<Keys>> {
        &self.liveness
    }

    fn activity(&self) -> &Activity {
        &self.activity
    }

    fn gives_tokens(&self) -> bool {
        self.gives_tokens
    }

    async fn try_lock(&self, keys: Keys, access: Access) -> Answer<Tried> {
        let beside: [&(dyn ToSql + Sync); 2] = [&keys.waiters, &keys.writers];
        let asked = match access {
            Access::Exclusive => self.ask_of_keys(TRY, keys, &beside[..1]).await,
            Access::Shared => self.ask_of_keys(TRY_SHARED, keys, &beside[..1]).await,
        };
        let (sent_at, row) = asked?;
        self.check(&row);
        match self.tried(sent_at, &row, 1)? {
            // Whether those who seem to wait come first takes another look.
            Tried::Held { others_wait: true } if access == Access::Shared => {
                let statement = TRY_SHARED_BESIDE_WAITERS;
                let (sent_at, row) = self.ask_of_keys(statement, keys, &beside).await?;
                self.check(&row);
                self.tried(sent_at, &row, 1)
            }
            tried => Ok(tried),
        }
    }

    async fn try_lock_past_notices(&self, keys: Keys) -> Answer<Tried> {
        let statement = TRY_SHARED_PAST_NOTICES;
        let (sent_at, row) = self.ask_of_keys(statement, keys, &[&keys.waiters]).await?;
        self.check(&row);
        self.tried(sent_at, &row, 1)
    }

    async fn is_shareable(&self, keys: Keys) -> Answer<bool> {
        let beside: [&(dyn ToSql + Sync); 2] = [&keys.waiters, &keys.writers];
        let (_, row) = self.ask_of_keys(IS_SHAREABLE, keys, &beside).await?;
        self.check(&row);
        row.try_get(1)
    }

    async fn lock(&self, keys: Keys, access: Access, idle: Duration) -> Answer<()> {
        let idle = milliseconds(idle);
        let statement = match access {
            Access::Exclusive => LOCK,
            Access::Shared => LOCK_SHARED,
        };
        self.ask_of_keys(statement, keys, &[&idle]).await.map(drop)
    }

    async fn claim(&self, lease: Duration) -> Answer<Granted> {
        let (sent_at, row) = self.ask(CLAIM, &[&milliseconds(lease)]).await?;
        self.check(&row);
        let token = self.token_of(&row, 1)?;
        Ok(Granted { sent_at, token })
    }

    async fn unlock(&self, keys: Keys, access: Access) -> Answer<bool> {
        let tells: [&(dyn ToSql + Sync); 2] = [&keys.waiters, &keys.channel()];
        let statement = match access {
            Access::Exclusive => UNLOCK,
            Access::Shared => UNLOCK_SHARED,
        };
        let (_, row) = self.ask_of_keys(statement, keys, &tells).await?;
        row.try_get(0)
    }

    async fn relock(&self, keys: Keys, from: Access, to: Access) -> Answer<(bool, Tried)> {
        let tells: [&(dyn ToSql + Sync); 2] = [&keys.waiters, &keys.channel()];
        let statement = match (from, to) {
            (Access::Exclusive, Access::Exclusive) => RELOCK,
            (Access::Exclusive, Access::Shared) => RELOCK_TO_SHARED,
            (Access::Shared, Access::Exclusive) => RELOCK_FROM_SHARED,
            (Access::Shared, Access::Shared) => RELOCK_SHARED,
        };
        let (sent_at, row) = self.ask_of_keys(statement, keys, &tells).await?;
        self.check(&row);
        Ok((row.try_get(1)?, self.tried(sent_at, &row, 2)?))
    }

    async fn unlock_all(&self) -> Answer<()> {
        match self.ask(UNLOCK_ALL, &[]).await {
            Err(error) if is_cancelled(&error) => self.ask(UNLOCK_ALL, &[]).await.map(drop),
            answer => answer.map(drop),
        }
    }

    async fn ping(&self) -> Answer<Timestamp> {
        let (sent_at, row) = self.ask(PING, &[]).await?;
        self.check(&row);
        if row.try_get(1).unwrap_or(false) {
            self.liveness.end("the server has become a standby");
        }
        Ok(sent_at)
    }

    async fn keep_for(&self, lease: Duration) -> Answer<()> {
        self.ask(KEEP_FOR, &[&milliseconds(lease)]).await.map(drop)
    }

    async fn cancel(&self, other: Backend<i32>) -> Answer<bool> {
        self.ask_of_backend(CANCEL, other).await
    }

    async fn terminate(&self, other: Backend<i32>) -> Answer<bool> {
        self.ask_of_backend(TERMINATE, other).await
    }

    async fn look_at(&self, other: Backend<i32>) -> Answer<Seen> {
        let (_, row) = self.ask(WAITS, &[&other.pid, &other.started]).await?;
        Ok(Seen {
            waits: row.try_get::<_, i64>(0)? > 0,
            is_in_the_way: row.try_get(1)?,
        })
    }

    async fn may_be_held_by(&self, keys: Keys, other: Backend<i32>) -> Answer<bool> {
        let (high, low, form) = keys.lock.in_pg_locks();
        let (pid, started) = (other.pid, other.started);
        let parameters: [&(dyn ToSql + Sync); 5] = [&pid, &started, &high, &low, &form];
        self.ask(IS_HELD_BY, &parameters).await?.1.try_get(0)
    }

    async fn holders(&self, keys: Keys) -> Answer<Option<Vec<i32>>> {
        let (high, low, form) = keys.lock.in_pg_locks();
        let asked = self.ask(HOLDERS, &[&high, &low, &form]).await;
        asked?.1.try_get(0).map(Some)
    }

    fn subscribe(&self, keys: Keys) -> Arc<Notices> {
        self.notices.subscribe(keys)
    }

    /// Holds the second key in shared mode, and listens on its channel. So whoever releases the
    /// lock sees the waiter in the same round trip.
    async fn register_waiter(&self, keys: Keys, access: Access) -> Answer<bool> {
        let listen = format!("LISTEN {}", keys.channel());
        let beside: [&(dyn ToSql + Sync); 2] = [&keys.waiters, &keys.writers];
        let registering = async {
            match access {
                Access::Exclusive => self.ask(REGISTER_WRITER, &beside).await,
                Access::Shared => self.ask(REGISTER_READER, &beside[..1]).await,
            }
        };
        let (listens, registered) = join(self.client.batch_execute(&listen), registering).await;
        listens?;
        registered?.1.try_get(0)
    }

    async fn unregister_waiter(
        &self,
        keys: Keys,
        access: Access,
        notices: &Arc<Notices>,
        is_registered: bool,
    ) -> Answer<()> {
        let unlisten = async {
            // Both happen in one step, so that a `LISTEN` of the next waiter comes after it.
            match self.notices.unsubscribe(keys, notices) {
                true => {
                    let unlisten = format!("UNLISTEN {}", keys.channel());
                    self.client.batch_execute(&unlisten).await
                }
                false => Ok(()),
            }
        };
        let beside: [&(dyn ToSql + Sync); 2] = [&keys.waiters, &keys.writers];
        let unregister = async {
            match (is_registered, access) {
                (false, _) => Ok(()),
                (true, Access::Exclusive) => self.ask(UNREGISTER_WRITER, &beside).await.map(drop),
                (true, Access::Shared) => self.ask(UNREGISTER_READER, &beside[..1]).await.map(drop),
            }
        };
        let (unlistened, unregistered) = join(unlisten, unregister).await;
        unregistered.and(unlistened)
    }

    fn upgrade_key(name: &str) -> Keys {
        Keys::beside(name, UPGRADE)
    }

    async fn parties(&self, name: &str, kind: LockKind) -> Answer<Vec<Party<i32>>> {
        let wanted = wanted(name, kind);
        let (mut highs, mut lows, mut forms, mut uses) = (vec![], vec![], vec![], vec![]);
        for (key, of) in &wanted {
            let (high, low, form) = key.in_pg_locks();
            highs.push(high);
            lows.push(low);
            forms.push(form);
            uses.push(*of as i16);
        }
        let parameters: [&(dyn ToSql + Sync); 4] = [&highs, &lows, &forms, &uses];
        let (_, row) = self.ask(PARTIES, &parameters).await?;
        let pids: Vec<i32> = row.try_get(0)?;
        let uses: Vec<i16> = row.try_get(1)?;
        let shares: Vec<bool> = row.try_get(2)?;
        let granted: Vec<bool> = row.try_get(3)?;
        let labels: Vec<String> = row.try_get(4)?;
        let mut parties = Vec::new();
        for (place, label) in labels.into_iter().enumerate() {
            let of = USES.iter().find(|of| **of as i16 == uses[place]);
            let Some(part) = of.and_then(|of| of.part(shares[place], granted[place])) else {
                continue;
            };
            let pid = pids[place];
            parties.push(Party { pid, label, part });
        }
        Ok(parties)
    }

    fn permit_keys(name: &str) -> PermitKeys<Keys> {
        let turnstile = Keys::beside(name, TURNSTILE);
        PermitKeys {
            asking: Keys::beside(name, ASKING),
            turnstile,
            released: turnstile.heard_by_itself(),
        }
    }

    fn permits(name: &str, numbers: impl Iterator<Item = u32>) -> Vec<Keys> {
        Keys::of_permits(name, numbers)
    }

    async fn try_permits(
        &self,
        keys: PermitKeys<Keys>,
        permits: &[Keys],
        most: usize,
        turn: Turn,
    ) -> Answer<Option<TakenPermits<Keys>>> {
        if most == 1 && turn == Turn::AfterOthers && permits.len() <= FEW_PERMITS {
            return self.try_one_permit(keys, permits).await;
        }
        let (turnstile, numbers) = (keys.turnstile.bigint(), bigints(permits));
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let looks: i32 = match turn {
            Turn::First => 0,
            Turn::AfterOthers => 1,
            Turn::AfterOthersAlone => 2,
            Turn::AfterOthersAllOrNothing => 3,
        };
        let parameters: [&(dyn ToSql + Sync); 4] = [&turnstile, &numbers, &most, &looks];
        let (sent_at, row) = self.ask(TRY_PERMITS, &parameters).await?;
        self.check(&row);
        let taken: Option<Vec<i64>> = row.try_get(1)?;
        Ok(taken.map(|taken| {
            let is_taken = |keys: &&Keys| taken.contains(&keys.bigint());
            let permits = permits.iter().filter(is_taken).copied().collect();
            TakenPermits { sent_at, permits }
        }))
    }

    async fn turn_is_taken(&self, keys: PermitKeys<Keys>) -> Answer<bool> {
        let turnstile = keys.turnstile.bigint();
        self.ask(TURN_IS_TAKEN, &[&turnstile]).await?.1.try_get(0)
    }

    async fn unlock_permits(&self, keys: PermitKeys<Keys>, permits: &[Keys]) -> Answer<usize> {
        let (turnstile, channel) = (keys.turnstile.bigint(), keys.released.channel());
        if let [permit] = permits {
            let permit = permit.bigint();
            let parameters: [&(dyn ToSql + Sync); 3] = [&turnstile, &permit, &channel];
            let (_, row) = self.ask(UNLOCK_ONE_PERMIT, &parameters).await?;
            return row.try_get(0).map(|released: bool| usize::from(released));
        }
        let numbers = bigints(permits);
        let parameters: [&(dyn ToSql + Sync); 3] = [&turnstile, &numbers, &channel];
        let released: i64 = self.ask(UNLOCK_PERMITS, &parameters).await?.1.try_get(0)?;
        Ok(usize::try_from(released).unwrap_or_default())
    }

    async fn may_have_permits(&self, permits: &[Keys], other: Backend<i32>) -> Answer<bool> {
        let (pid, started, numbers) = (other.pid, other.started, bigints(permits));
        let parameters: [&(dyn ToSql + Sync); 3] = [&pid, &started, &numbers];
        self.ask(HAS_PERMITS, &parameters).await?.1.try_get(0)
    }

    async fn permit_holders(&self, permits: &[Keys]) -> Answer<Option<Vec<i32>>> {
        let asked = self.ask(PERMIT_HOLDERS, &[&bigints(permits)]).await;
        asked?.1.try_get(0).map(Some)
    }

    async fn listen(&self, keys: Keys) -> Answer<()> {
        let listen = format!("LISTEN {}", keys.channel());
        self.client.batch_execute(&listen).await
    }

    async fn has_no_waiters(&self, keys: Keys) -> Answer<bool> {
        self.ask(NO_WAITERS, &[&keys.waiters]).await?.1.try_get(0)
    }
}

impl PostgresSession {
    /// Takes one of a few permits.
    async fn try_one_permit(
        &self,
        keys: PermitKeys<Keys>,
        permits: &[Keys],
    ) -> Answer<Option<TakenPermits<Keys>>> {
        let turnstile = keys.turnstile.bigint();
        // The last one is tried again in the places that are left.
        let last = permits.last().map_or(turnstile, |permit| permit.bigint());
        let mut numbers = [last; FEW_PERMITS];
        for (number, permit) in numbers.iter_mut().zip(permits) {
            *number = permit.bigint();
        }
        let mut parameters: [&(dyn ToSql + Sync); FEW_PERMITS + 1] = [&turnstile; FEW_PERMITS + 1];
        for (parameter, number) in parameters[1..].iter_mut().zip(&numbers) {
            *parameter = number;
        }
        let (sent_at, row) = self.ask(TRY_ONE_PERMIT, &parameters).await?;
        self.check(&row);
        let taken: Option<i32> = row.try_get(1)?;
        Ok(taken.map(|place| {
            let place = usize::try_from(place).ok();
            let taken = place.and_then(|place| permits.get(place).or(permits.last()));
            let permits = taken.into_iter().copied().collect();
            TakenPermits { sent_at, permits }
        }))
    }

    /// Reads what became of a try, from this column on.
    fn tried(&self, sent_at: Timestamp, row: &Row, column: usize) -> Answer<Tried> {
        let Number(number) = row.try_get(column)?;
        Ok(match number {
            HELD => Tried::Held { others_wait: false },
            OTHERS_WAIT => Tried::Held { others_wait: true },
            BEHIND_NOTICES => Tried::BehindNotices,
            _ => Tried::Granted(Granted {
                sent_at,
                token: self.token_of(row, column)?,
            }),
        })
    }

    /// Makes the token of a grant: the number of its transaction is in this column, and when the
    /// server's memory was last lost in the next one.
    fn token_of(&self, row: &Row, column: usize) -> Answer<Option<u64>> {
        if !self.gives_tokens {
            return Ok(None);
        }
        let (Number(transaction), Number(restarted)) =
            (row.try_get(column)?, row.try_get(column + 1)?);
        let number = transaction + restarted + MICROS_FROM_1970;
        let token = self.token_base.saturating_add(number);
        Ok(Some(token.try_into().unwrap_or(0)))
    }

    async fn ask_of_keys(
        &self,
        statement: Sql,
        keys: Keys,
        others: &[&(dyn ToSql + Sync)],
    ) -> Answer<(Timestamp, Row)> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(4);
        match &keys.lock {
            AdvisoryKey::Int8(key) => parameters.push(key),
            AdvisoryKey::Int4Pair(high, low) => {
                parameters.push(high);
                parameters.push(low);
            }
        }
        parameters.extend(others);
        self.ask(of_key(statement, keys.lock), &parameters).await
    }

    async fn ask_of_backend(&self, statement: Sql, other: Backend<i32>) -> Answer<bool> {
        let asked = self.ask(statement, &[&other.pid, &other.started]).await;
        let count: i64 = asked?.1.try_get(0)?;
        Ok(count > 0)
    }

    /// Asks, and says when that was sent.
    async fn ask(
        &self,
        statement: Sql,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Answer<(Timestamp, Row)> {
        let request = self.activity.begin();
        let prepared = match self.prepared[statement.0].get() {
            Some(prepared) => prepared,
            None => {
                let _unsent = sending::unsent();
                // Boxed, since every request would make room for it.
                Box::pin(self.prepare(statement)).await?
            }
        };
        let sent_at = Timestamp::now();
        let row = self.client.query_one(prepared, parameters).await?;
        request.answered(sent_at);
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

    /// Ends the session if its mark, the first column, is not there: a pooler that changes the
    /// server's session under ours makes all locks worthless.
    fn check(&self, row: &Row) {
        if row.try_get::<_, Option<&str>>(0).ok().flatten() != Some(&*self.mark) {
            self.liveness
                .end("a connection pooler has exchanged the session on the server");
        }
    }
}

/// So many permits are looked for, from the first one on, when somebody asks who has them.
const PERMITS_LOOKED_AT: u32 = 1_024;

/// What a key is for.
#[derive(Clone, Copy)]
enum Use {
    Lock,
    /// Waiters for a notice share it.
    Waiters,
    Right,
    Permit,
    Turnstile,
}

const USES: [Use; 5] = [
    Use::Lock,
    Use::Waiters,
    Use::Right,
    Use::Permit,
    Use::Turnstile,
];

impl Use {
    /// Returns what a session has to do with the lock that has this key, or waits for it.
    fn part(self, shares: bool, granted: bool) -> Option<Part> {
        Some(match (self, shares, granted) {
            (Self::Lock | Self::Turnstile | Self::Right, _, false) => Part::Waits,
            (Self::Lock, false, true) => Part::HoldsAlone,
            (Self::Lock, true, true) => Part::Shares,
            (Self::Right, _, true) => Part::MayUpgrade,
            (Self::Permit, false, true) => Part::HasPermit,
            (Self::Turnstile, false, true) | (Self::Waiters, true, true) => Part::Waits,
            // Somebody looks for a moment.
            (Self::Turnstile, true, true) | (Self::Waiters | Self::Permit, _, _) => return None,
        })
    }
}

/// Returns the keys that tell of a lock, and what each is for.
fn wanted(name: &str, kind: LockKind) -> Vec<(AdvisoryKey, Use)> {
    if kind == LockKind::Semaphore {
        let turnstile = Keys::beside(name, TURNSTILE);
        let permits = Keys::of_permits(name, 0..PERMITS_LOOKED_AT);
        let permits = permits.into_iter().map(|permit| (permit.lock, Use::Permit));
        return permits
            .chain([
                (turnstile.lock, Use::Turnstile),
                (turnstile.of_waiters(), Use::Waiters),
            ])
            .collect();
    }
    let keys = PostgresSession::key(name);
    let mut wanted = vec![(keys.lock, Use::Lock), (keys.of_waiters(), Use::Waiters)];
    if kind == LockKind::RwLock {
        let right = PostgresSession::upgrade_key(name);
        wanted.push((right.lock, Use::Right));
    }
    wanted
}

fn bigints(keys: &[Keys]) -> Vec<i64> {
    keys.iter().map(|keys| keys.bigint()).collect()
}

/// The number of a transaction, or a time in microseconds since 2000, as the server sends it.
struct Number(i64);

impl<'a> FromSql<'a> for Number {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(kind: &Type) -> bool {
        [Type::XID8, Type::TIMESTAMPTZ].contains(kind)
    }
}
