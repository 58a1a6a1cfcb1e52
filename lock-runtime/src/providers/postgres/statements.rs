//! What is asked of the server.

/// When the server's memory was last lost: at its start, or when it started its processes again
/// because one of them had crashed, which resets its statistics. Asked for anew at every grant, since
/// a reset by hand is to raise the tokens of all sessions at once.
const RESTARTED: &str =
    "greatest(pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time())";
/// Where there are no tokens, since that time cannot be told.
const NO_TOKEN: &str = "0::int8";

/// A statement, prepared in a session when it is first needed. Those for a key stand twice: for a
/// `bigint`, and then for two `integer`s.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sql(pub(super) usize);

pub(super) const TRY: Sql = Sql(0);
pub(super) const UNLOCK: Sql = Sql(2);
pub(super) const LOCK: Sql = Sql(4);
pub(super) const TOKEN: Sql = Sql(6);
pub(super) const PING: Sql = Sql(7);
pub(super) const CANCEL: Sql = Sql(8);
pub(super) const TERMINATE: Sql = Sql(9);
pub(super) const WAITS: Sql = Sql(10);
pub(super) const UNLOCK_ALL: Sql = Sql(11);

pub(super) const STATEMENTS: usize = TEXTS.len();

const TEXTS: [&str; 12] = [
    // `CASE` evaluates in order: the token is younger than the lock, and a lock that was not to be
    // had costs no transaction number.
    "SELECT pg_backend_pid(), CASE WHEN pg_try_advisory_lock($1) THEN {token} END",
    "SELECT pg_backend_pid(), CASE WHEN pg_try_advisory_lock($1, $2) THEN {token} END",
    "SELECT pg_advisory_unlock($1)",
    "SELECT pg_advisory_unlock($1, $2)",
    "SELECT 1 FROM pg_advisory_lock($1)",
    "SELECT 1 FROM pg_advisory_lock($1, $2)",
    "SELECT pg_backend_pid(), {token}",
    "SELECT pg_backend_pid()",
    // Process ids are used again, so another session may have that of one that is gone.
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_get_activity($1) WHERE {started} = $2",
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_get_activity($1) WHERE {started} = $2",
    "SELECT count(*) FROM pg_stat_get_activity($1) \
     WHERE {started} = $2 AND wait_event_type = 'Lock'",
    "SELECT 1 FROM pg_advisory_unlock_all()",
];

const TOKEN_SQL: &str = "pg_current_xact_id()::text::int8 + \
                         (extract(epoch FROM {restarted}) * 1000000)::int8";

/// When a session was started, as a number.
pub(super) const STARTED: &str = "(extract(epoch FROM backend_start) * 1000000)::int8";

pub(super) fn text(statement: Sql, gives_tokens: bool) -> String {
    let token = match gives_tokens {
        true => TOKEN_SQL,
        false => NO_TOKEN,
    };
    TEXTS[statement.0]
        .replace("{token}", token)
        .replace("{restarted}", RESTARTED)
        .replace("{started}", STARTED)
}
