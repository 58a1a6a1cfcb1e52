//! What is asked of the server.

use std::time::Duration;

use super::key::AdvisoryKey;

/// When the server's memory was last lost: at its start, or when it started its processes again
/// because one of them had crashed, which resets its statistics. Every grant asks for it anew,
/// since a reset by hand is to raise the tokens of all sessions at once.
const RESTARTED: &str =
    "greatest(pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time())";
/// The number of the transaction. It and the time make the token, which the client adds up: sums
/// and conversions cost the server more than the rest of a grant.
const NUMBER: &str = "pg_current_xact_id()";
/// Stand for these where there are no tokens, since that time cannot be told.
const NO_NUMBER: &str = "'3'::xid8";
const NO_TIME: &str = "NULL::timestamptz";

/// A statement, prepared in a session when it is first needed. Those for a key stand twice: for a
/// `bigint`, and then for two `integer`s.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sql(pub(super) usize);

pub(super) const TRY: Sql = Sql(0);
pub(super) const TRY_SHARED: Sql = Sql(2);
pub(super) const TRY_SHARED_PAST_NOTICES: Sql = Sql(4);
pub(super) const UNLOCK: Sql = Sql(6);
pub(super) const UNLOCK_SHARED: Sql = Sql(8);
pub(super) const RELOCK: Sql = Sql(10);
pub(super) const RELOCK_TO_SHARED: Sql = Sql(12);
pub(super) const RELOCK_FROM_SHARED: Sql = Sql(14);
pub(super) const RELOCK_SHARED: Sql = Sql(16);
pub(super) const LOCK: Sql = Sql(18);
pub(super) const LOCK_SHARED: Sql = Sql(20);
pub(super) const IS_SHAREABLE: Sql = Sql(22);
pub(super) const TRY_SHARED_BESIDE_WAITERS: Sql = Sql(24);
pub(super) const CLAIM: Sql = Sql(26);
pub(super) const PING: Sql = Sql(27);
pub(super) const CANCEL: Sql = Sql(28);
pub(super) const TERMINATE: Sql = Sql(29);
pub(super) const WAITS: Sql = Sql(30);
pub(super) const UNLOCK_ALL: Sql = Sql(31);
pub(super) const REGISTER_READER: Sql = Sql(32);
pub(super) const REGISTER_WRITER: Sql = Sql(33);
pub(super) const UNREGISTER_READER: Sql = Sql(34);
pub(super) const UNREGISTER_WRITER: Sql = Sql(35);
pub(super) const KEEP_FOR: Sql = Sql(36);
pub(super) const IS_HELD_BY: Sql = Sql(37);
pub(super) const HOLDERS: Sql = Sql(38);
pub(super) const NO_WAITERS: Sql = Sql(39);

pub(super) const TRY_PERMITS: Sql = Sql(40);
pub(super) const UNLOCK_PERMITS: Sql = Sql(41);
pub(super) const HAS_PERMITS: Sql = Sql(42);
pub(super) const PERMIT_HOLDERS: Sql = Sql(43);

pub(super) const PARTIES: Sql = Sql(44);
pub(super) const TURN_IS_TAKEN: Sql = Sql(45);
pub(super) const TRY_ONE_PERMIT: Sql = Sql(46);
pub(super) const UNLOCK_ONE_PERMIT: Sql = Sql(47);

pub(super) const STATEMENTS: usize = TEXTS.len();

/// What `TRY` and `RELOCK` answer in place of a transaction's number, of which the first is 3:
/// somebody has the lock.
pub(super) const HELD: i64 = 0;
/// The same, and it seems that somebody waits for a notice; after `RELOCK`, one was sent. Whoever
/// looks at the same time looks like a waiter.
pub(super) const OTHERS_WAIT: i64 = 1;
/// A writer waits for a notice, and so a reader may not have the lock.
pub(super) const BEHIND_NOTICES: i64 = 2;
/// The notice of one who held the lock alone says this.
pub(super) const AFTER_EXCLUSIVE: &str = "x";

/// `{k}` is the lock's key. The other parameters are those that the session passes: `{1}` is the
/// key of those who wait for a notice, which is tried for the time of the statement, and `{2}`
/// their channel or the key of the writers among them. Columns and `CASE` are evaluated in order: a
/// token is younger than its lock, and a lock that was not to be had costs no transaction number.
const TEXTS: [&str; 48] = [
    TRY_SQL,
    TRY_SQL,
    TRY_SHARED_SQL,
    TRY_SHARED_SQL,
    TRY_PAST_NOTICES_SQL,
    TRY_PAST_NOTICES_SQL,
    UNLOCK_SQL,
    UNLOCK_SQL,
    UNLOCK_SHARED_SQL,
    UNLOCK_SHARED_SQL,
    RELOCK_SQL,
    RELOCK_SQL,
    RELOCK_TO_SHARED_SQL,
    RELOCK_TO_SHARED_SQL,
    RELOCK_FROM_SHARED_SQL,
    RELOCK_FROM_SHARED_SQL,
    RELOCK_SHARED_SQL,
    RELOCK_SHARED_SQL,
    LOCK_SQL,
    LOCK_SQL,
    LOCK_SHARED_SQL,
    LOCK_SHARED_SQL,
    IS_SHAREABLE_SQL,
    IS_SHAREABLE_SQL,
    TRY_SHARED_BESIDE_WAITERS_SQL,
    TRY_SHARED_BESIDE_WAITERS_SQL,
    "SELECT {mark}, {number}, {restarted}, set_config('idle_session_timeout', $1, false)",
    "SELECT {mark}, pg_is_in_recovery()",
    // Process ids are used again, so another session may have that of one that is gone.
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_get_activity($1) WHERE {started} = $2",
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_get_activity($1) WHERE {started} = $2",
    // Whether it waits, and whether somebody waits for the snapshot that it has meanwhile.
    "SELECT count(*), EXISTS (SELECT FROM pg_locks AS own JOIN pg_locks AS wanted \
     USING (virtualxid) WHERE own.pid = $1 AND own.locktype = 'virtualxid' AND own.granted \
     AND wanted.locktype = 'virtualxid' AND NOT wanted.granted) \
     FROM pg_stat_get_activity($1) WHERE {started} = $2 AND wait_event_type = 'Lock'",
    "SELECT 1 FROM pg_advisory_unlock_all()",
    "SELECT pg_try_advisory_lock_shared($1)",
    // Nobody takes the second one alone.
    "SELECT CASE WHEN pg_try_advisory_lock_shared($1) THEN pg_try_advisory_lock_shared($2) \
     ELSE false END",
    "SELECT pg_advisory_unlock_shared($1)",
    "SELECT pg_advisory_unlock_shared($1), pg_advisory_unlock_shared($2)",
    "SELECT set_config('idle_session_timeout', $1, false)",
    "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_get_activity($1) USING (pid) \
     WHERE {started} = $2 AND granted AND {is_lock} \
     AND classid = $3::int8::oid AND objid = $4::int8::oid AND objsubid = $5::int2)",
    "SELECT array(SELECT pid FROM pg_locks WHERE granted AND {is_lock} \
     AND classid = $1::int8::oid AND objid = $2::int8::oid AND objsubid = $3::int2)",
    "SELECT pg_try_advisory_xact_lock($1)",
    TRY_PERMITS_SQL,
    UNLOCK_PERMITS_SQL,
    "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_get_activity($1) USING (pid) \
     WHERE {started} = $2 AND granted AND {is_lock} AND objsubid = 1 AND {key} = ANY ($3))",
    "SELECT array(SELECT pid FROM pg_locks WHERE granted AND {is_lock} AND objsubid = 1 \
     AND {key} = ANY ($1))",
    // The keys come in three arrays, and what each is for in the fourth.
    "SELECT coalesce(array_agg(pid), '{}'), coalesce(array_agg(use), '{}'), \
     coalesce(array_agg(mode = 'ShareLock'), '{}'), coalesce(array_agg(granted), '{}'), \
     coalesce(array_agg(coalesce(application_name, '')), '{}') \
     FROM unnest($1::int8[], $2::int8[], $3::int2[], $4::int2[]) AS wanted (high, low, form, use) \
     JOIN pg_locks ON classid = high::oid AND objid = low::oid AND objsubid = form AND {is_lock} \
     LEFT JOIN pg_stat_get_activity(NULL) USING (pid)",
    TURN_IS_TAKEN_SQL,
    TRY_ONE_PERMIT_SQL,
    UNLOCK_ONE_PERMIT_SQL,
];

/// How sessions are marked, so that one is known again.
pub(super) const MARK: &str = "current_setting('lock_runtime.session', true)";
/// The `bigint` that a row of `pg_locks` stands for.
const KEY: &str = "(classid::int8 << 32 | objid::int8)";
const IS_LOCK: &str = "locktype = 'advisory' AND database = \
                       (SELECT oid FROM pg_database WHERE datname = current_database())";

const TRY_SQL: &str = "SELECT {mark}, CASE WHEN pg_try_advisory_lock({k}) THEN {number} \
     WHEN pg_try_advisory_xact_lock({1}) THEN '0'::xid8 ELSE '1'::xid8 END, {restarted}";
/// Tries nothing if somebody seems to wait for a notice, and answers as if the lock were held then.
/// The plan of a statement costs more than most of it, and a look at `pg_locks` is a large part of
/// a plan. So that look is in another statement, which follows this one where it is needed.
const TRY_SHARED_SQL: &str = "SELECT {mark}, CASE \
     WHEN NOT pg_try_advisory_xact_lock({1}) THEN '1'::xid8 \
     WHEN pg_try_advisory_lock_shared({k}) THEN {number} ELSE '0'::xid8 END, {restarted}";
/// The server lets no reader past the writers in its queue. Those who wait for a notice are seen
/// here.
const TRY_SHARED_BESIDE_WAITERS_SQL: &str = "SELECT {mark}, CASE \
     WHEN {writers_wait} THEN '2'::xid8 \
     WHEN pg_try_advisory_lock_shared({k}) THEN {number} \
     WHEN pg_try_advisory_xact_lock({1}) THEN '0'::xid8 ELSE '1'::xid8 END, {restarted}";
const TRY_PAST_NOTICES_SQL: &str = "SELECT {mark}, CASE \
     WHEN pg_try_advisory_lock_shared({k}) THEN {number} \
     WHEN pg_try_advisory_xact_lock({1}) THEN '0'::xid8 ELSE '1'::xid8 END, {restarted}";
/// A lock that is held for the statement leaves nothing, however the statement ends.
const IS_SHAREABLE_SQL: &str = "SELECT {mark}, CASE WHEN {writers_wait} THEN false \
     ELSE pg_try_advisory_xact_lock_shared({k}) END";
/// Whoever looks takes `{1}` alone for a moment, so it tells nothing for sure. The key of writers
/// is only ever held by those who wait, and looked for when there may be some.
const WRITERS_WAIT: &str = "NOT pg_try_advisory_xact_lock({1}) AND EXISTS (\
     SELECT FROM pg_locks WHERE granted AND {is_lock} AND objsubid = 1 \
     AND {key} = {2}::int8 AND pid <> pg_backend_pid())";
const UNLOCK_SQL: &str = "SELECT pg_advisory_unlock({k}), CASE \
     WHEN pg_try_advisory_xact_lock({1}) THEN false ELSE {notify} END";
const UNLOCK_SHARED_SQL: &str = "SELECT pg_advisory_unlock_shared({k}), CASE \
     WHEN pg_try_advisory_xact_lock({1}) THEN false ELSE {notify_shared} END";
/// The notice goes out when the lock is free, and then the session that releases it does not try.
/// Who holds `{1}` alone for a moment has seen no writer wait.
const RELOCK_SQL: &str = "SELECT {mark}, unlocked, CASE WHEN others_wait THEN '1'::xid8 \
     WHEN pg_try_advisory_lock({k}) THEN {number} ELSE '0'::xid8 END, {restarted} FROM (\
     SELECT pg_advisory_unlock({k}) AS unlocked, CASE \
     WHEN pg_try_advisory_xact_lock({1}) THEN false ELSE {notify} END AS others_wait OFFSET 0\
     ) AS released";
const RELOCK_TO_SHARED_SQL: &str = "SELECT {mark}, unlocked, CASE \
     WHEN others_wait THEN '1'::xid8 \
     WHEN pg_try_advisory_lock_shared({k}) THEN {number} ELSE '0'::xid8 END, {restarted} FROM (\
     SELECT pg_advisory_unlock({k}) AS unlocked, CASE \
     WHEN pg_try_advisory_xact_lock({1}) THEN false ELSE {notify} END AS others_wait OFFSET 0\
     ) AS released";
const RELOCK_FROM_SHARED_SQL: &str = "SELECT {mark}, unlocked, CASE \
     WHEN others_wait THEN '1'::xid8 \
     WHEN pg_try_advisory_lock({k}) THEN {number} ELSE '0'::xid8 END, {restarted} FROM (\
     SELECT pg_advisory_unlock_shared({k}) AS unlocked, CASE \
     WHEN pg_try_advisory_xact_lock({1}) THEN false ELSE {notify_shared} END AS others_wait \
     OFFSET 0) AS released";
const RELOCK_SHARED_SQL: &str = "SELECT {mark}, unlocked, CASE \
     WHEN others_wait THEN '1'::xid8 \
     WHEN pg_try_advisory_lock_shared({k}) THEN {number} ELSE '0'::xid8 END, {restarted} FROM (\
     SELECT pg_advisory_unlock_shared({k}) AS unlocked, CASE \
     WHEN pg_try_advisory_xact_lock({1}) THEN false ELSE {notify_shared} END AS others_wait \
     OFFSET 0) AS released";
/// `$1` is the turnstile, and `$4` how it is looked at: not at all, beside others who look, or from
/// 2 on alone. The server stops at the last permit that is wanted, and locks no other one.
/// By 3, too few are given back before others look: they are kept from it until the end.
const TRY_PERMITS_SQL: &str = "SELECT {mark}, CASE \
     WHEN $4::int4 = 3 AND cardinality(taken) < $3::int8 THEN array(SELECT permit \
     FROM unnest(taken) AS permit WHERE NOT pg_advisory_unlock(permit)) ELSE taken END \
     FROM (SELECT CASE WHEN CASE $4::int4 WHEN 0 THEN true \
     WHEN 1 THEN pg_try_advisory_xact_lock_shared($1) ELSE pg_try_advisory_xact_lock($1) END \
     THEN array(SELECT permit FROM unnest($2::int8[]) AS permit \
     WHERE pg_try_advisory_lock(permit) LIMIT $3) END AS taken OFFSET 0) AS tried";
/// Takes the first free one of [`FEW_PERMITS`](crate::providers::sql_session::FEW_PERMITS), and says
/// which: a plan without subqueries is begun in a third of the time. `$1` is the turnstile.
const TRY_ONE_PERMIT_SQL: &str = "SELECT {mark}, CASE \
     WHEN NOT pg_try_advisory_xact_lock_shared($1) THEN NULL \
     WHEN pg_try_advisory_lock($2) THEN 0 WHEN pg_try_advisory_lock($3) THEN 1 \
     WHEN pg_try_advisory_lock($4) THEN 2 WHEN pg_try_advisory_lock($5) THEN 3 \
     WHEN pg_try_advisory_lock($6) THEN 4 WHEN pg_try_advisory_lock($7) THEN 5 \
     WHEN pg_try_advisory_lock($8) THEN 6 WHEN pg_try_advisory_lock($9) THEN 7 ELSE -1 END";
const UNLOCK_ONE_PERMIT_SQL: &str = "SELECT pg_advisory_unlock($2), CASE \
     WHEN pg_try_advisory_xact_lock_shared($1) THEN false ELSE pg_notify($3, '') IS NOT NULL END";
/// Who looks has the turnstile in a transaction; who waits has it while there is none, whose
/// number is then zero.
const TURN_IS_TAKEN_SQL: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE {is_lock} \
     AND objsubid = 1 AND {key} = $1::int8 AND (NOT granted \
     OR mode = 'ExclusiveLock' AND virtualtransaction LIKE '%/0'))";
const UNLOCK_PERMITS_SQL: &str = "SELECT released, CASE \
     WHEN pg_try_advisory_xact_lock_shared($1) THEN false ELSE pg_notify($3, '') IS NOT NULL END \
     FROM (SELECT count(*) AS released FROM unnest($2::int8[]) AS permit \
     WHERE pg_advisory_unlock(permit) OFFSET 0) AS counted";
/// When the wait is over, the session is given so long to say that it lives. That is set before the
/// wait, so that a hand-over does not take longer by it.
const LOCK_SQL: &str =
    "SELECT pg_advisory_lock({k}) FROM set_config('idle_session_timeout', {1}, false)";
const LOCK_SHARED_SQL: &str =
    "SELECT pg_advisory_lock_shared({k}) FROM set_config('idle_session_timeout', {1}, false)";

/// When a session was started, as a number of microseconds.
pub(super) const STARTED: &str = "(extract(epoch FROM backend_start) * 1000000)::int8";

/// Returns the text of a statement.
pub(super) fn text(statement: Sql, gives_tokens: bool) -> String {
    let (number, restarted) = match gives_tokens {
        true => (NUMBER, RESTARTED),
        false => (NO_NUMBER, NO_TIME),
    };
    let (key, first, second) = match statement.0 % 2 {
        0 => ("$1", "$2", "$3"),
        _ => ("$1, $2", "$3", "$4"),
    };
    TEXTS[statement.0]
        .replace("{writers_wait}", WRITERS_WAIT)
        .replace("{notify}", "pg_notify({2}, 'x') IS NOT NULL")
        .replace("{notify_shared}", "pg_notify({2}, '') IS NOT NULL")
        .replace("{k}", key)
        .replace("{1}", first)
        .replace("{2}", second)
        .replace("{mark}", MARK)
        .replace("{is_lock}", IS_LOCK)
        .replace("{key}", KEY)
        .replace("{number}", number)
        .replace("{restarted}", restarted)
        .replace("{started}", STARTED)
}

/// Returns the statement's form for this kind of key.
pub(super) fn of_key(statement: Sql, key: AdvisoryKey) -> Sql {
    match key {
        AdvisoryKey::Int8(_) => statement,
        AdvisoryKey::Int4Pair(..) => Sql(statement.0 + 1),
    }
}

/// Writes a span as a setting takes it, in milliseconds rounded up.
pub(super) fn milliseconds(span: Duration) -> String {
    span.as_nanos().div_ceil(1_000_000).to_string()
}
