//! Waiters in the server's queue, and waiters that leave it.

use std::time::Duration;

use lock_runtime::LockProvider;
use lock_tests::eventually;
use lock_tests::postgres::PostgresOptions;
use lock_tests::proxy::Flow;

use crate::common::{
    BOUND, Server, connected, lock, proxied, take, token, with_server, with_server_of,
};

/// A lease that plays no part.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn waiters_are_served_by_the_server_in_order() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let guard = take(&holder, "order").await;
        let mut waiting = Vec::new();
        for place in 0..5 {
            let provider = server.provider().await;
            waiting.push(tokio::spawn(async move { take(&provider, "order").await }));
            server.until_waiting(place + 1).await;
        }
        let mut last = token(&guard);
        guard.release().await.unwrap();
        for (place, next) in waiting.into_iter().enumerate() {
            let guard = next.await.unwrap();
            assert!(token(&guard) > last, "place {place}");
            last = token(&guard);
            guard.release().await.unwrap();
        }
    });
}

/// Returns options of a server that writes down what it is asked.
fn talkative() -> PostgresOptions {
    PostgresOptions::default()
        .config("log_statement = all")
        .config("log_line_prefix = '%u '")
}

/// Counts what the library has asked, without what waiters ask to see whether they still wait.
fn asked(server: &Server) -> usize {
    let log = server.process.process().log();
    let of_ours = log.lines().filter(|line| line.starts_with("app LOG:  "));
    of_ours.filter(|line| !line.contains("wait_event")).count()
}

/// 200 waiters of one process are one on the server, and each hand-over costs a statement or two.
#[test]
fn a_crowd_asks_the_server_once_a_hand_over() {
    with_server_of(talkative(), |server| async move {
        const WAITERS: usize = 200;
        let holder = connected(server.builder().lease(LONG)).await;
        let provider = connected(server.builder().lease(LONG)).await;
        let guard = take(&holder, "order").await;
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..WAITERS {
            let provider = provider.clone();
            crowd.spawn(async move { take(&provider, "order").await.release().await.unwrap() });
        }
        server.until_waiting(1).await;
        let sessions = server.sessions().await;
        assert!(sessions <= 4, "{sessions} sessions");
        let before = asked(&server);
        guard.release().await.unwrap();
        crowd.join_all().await;
        let asked = asked(&server) - before;
        // A hand-over is one.
        assert!(asked >= WAITERS, "{asked} statements cannot be all");
        assert!(asked <= WAITERS + 10, "{asked} statements");
    });
}

/// A hand-over wakes the next waiter and nobody else.
#[test]
fn a_crowd_of_processes_asks_the_server_once_a_hand_over() {
    with_server_of(talkative(), |server| async move {
        const WAITERS: usize = 60;
        let mut providers = Vec::new();
        for _ in 0..=WAITERS {
            // Longer than the test, so that nothing is asked to keep a session alive.
            providers.push(connected(server.builder().lease(LONG)).await);
        }
        let guard = take(&providers[WAITERS], "order").await;
        let mut crowd = tokio::task::JoinSet::new();
        for provider in &providers[..WAITERS] {
            let provider = provider.clone();
            crowd.spawn(async move { take(&provider, "order").await });
        }
        server.until_waiting(WAITERS as i64).await;
        let before = asked(&server);
        guard.release().await.unwrap();
        let mut last = 0;
        while let Some(next) = crowd.join_next().await {
            let next = next.unwrap();
            assert!(token(&next) > last);
            last = token(&next);
            next.release().await.unwrap();
        }
        let asked = asked(&server) - before;
        assert!(asked >= 2 * WAITERS, "{asked} statements cannot be all");
        // A token, and a release.
        assert!(asked <= 2 * WAITERS + 10, "{asked} statements");
    });
}

/// A waiter without a session of its own looks now and then.
#[test]
fn waiters_without_a_session_are_served_too() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let provider = connected(server.builder().waiting_sessions(1)).await;
        assert!(provider.capabilities().fair);
        let without = connected(server.builder().waiting_sessions(0)).await;
        assert!(!without.capabilities().fair);
        drop(without);
        let names = ["one", "two", "three"];
        let mut guards = Vec::new();
        for name in names {
            guards.push(take(&holder, name).await);
        }
        let mut waiting = tokio::task::JoinSet::new();
        for name in names {
            let provider = provider.clone();
            waiting.spawn(async move { take(&provider, name).await });
        }
        server.until_waiting(1).await;
        let sessions = server.sessions().await;
        assert!(sessions <= 3, "{sessions} sessions");
        for guard in guards {
            guard.release().await.unwrap();
        }
        assert_eq!(waiting.join_all().await.len(), names.len());
    });
}

/// An administrator's limits are for statements of applications, not for waiters.
#[test]
fn settings_of_the_role_end_no_wait() {
    with_server(|server| async move {
        // One who may create functions must not be asked in place of the server's own.
        let trap = "CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO public;
             CREATE ROLE owner; GRANT owner TO app;
             CREATE FUNCTION trap.pg_try_advisory_lock(int, int) RETURNS bool
             LANGUAGE SQL AS 'SELECT true';
             CREATE FUNCTION trap.set_config(text, text, bool) RETURNS text
             LANGUAGE SQL AS 'SELECT $2';
             CREATE FUNCTION trap.pg_backend_pid() RETURNS int
             LANGUAGE SQL AS 'SELECT 1';
             CREATE FUNCTION trap.equal(text, text) RETURNS bool
             LANGUAGE SQL AS 'SELECT false';
             CREATE OPERATOR trap.= (FUNCTION = trap.equal, LEFTARG = text, RIGHTARG = text);
             CREATE VIEW trap.pg_settings AS SELECT 'name' AS name WHERE false;
             GRANT SELECT ON trap.pg_settings TO public";
        server.raw.batch_execute(trap).await.unwrap();
        for setting in [
            "statement_timeout = '300ms'",
            "lock_timeout = '200ms'",
            "idle_session_timeout = '1s'",
            "idle_in_transaction_session_timeout = '1s'",
            "default_transaction_isolation = 'serializable'",
            "default_transaction_read_only = on",
            "search_path = trap, pg_catalog",
            // Of others than one's own, a role does not see when they were started.
            "role = owner",
        ] {
            let sql = format!("ALTER ROLE app SET {setting}");
            server.raw.batch_execute(&sql).await.unwrap();
        }
        let (holder, provider) = (server.provider().await, server.provider().await);
        let guard = take(&holder, "order").await;
        assert_eq!(server.locks(true).await, 1);
        let waiting = tokio::spawn(async move { take(&provider, "order").await });
        server.until_waiting(1).await;
        let pid = "SELECT pid::int8 FROM pg_locks WHERE locktype = 'advisory' AND granted = ";
        let waits = server.count(&format!("{pid}false")).await;
        // As long as all of these, and a little more.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(!guard.is_lost());
        guard.release().await.unwrap();
        let next = waiting.await.unwrap();
        assert_eq!(server.count(&format!("{pid}true")).await, waits);
        next.release().await.unwrap();
    });
}

/// A session that has waited for longer than a lease is not taken for dead when it is granted.
#[test]
fn a_long_wait_keeps_its_session() {
    with_server(|server| async move {
        const LEASE: Duration = Duration::from_secs(3);
        let holder = server.provider().await;
        let (proxy, provider) = proxied(&server.process, LEASE).await;
        let names: Vec<_> = (0..10).map(|number| format!("order:{number}")).collect();
        let mut guards = Vec::new();
        for name in &names {
            guards.push(take(&holder, name).await);
        }
        let mut waiting = tokio::task::JoinSet::new();
        for name in names {
            let provider = provider.clone();
            waiting.spawn(async move { take(&provider, &name).await });
        }
        server.until_waiting(10).await;
        let sessions = |granted: bool| {
            let server = &server;
            // A sum tells sets of process ids apart well enough.
            let sql = "SELECT sum(pid * pid::int8)::int8 FROM pg_locks WHERE locktype = 'advisory'";
            async move {
                server
                    .count(&format!("{sql} AND granted = {granted}"))
                    .await
            }
        };
        let waited = sessions(false).await;
        tokio::time::sleep(LEASE + LEASE / 4).await;
        let slow = Flow::Delay(Duration::from_millis(80));
        proxy.set(|fault| fault.to_client = slow);
        for guard in guards {
            guard.release().await.unwrap();
        }
        let granted = waiting.join_all().await;
        assert_eq!(
            sessions(true).await,
            waited,
            "they hold what they waited for"
        );
        drop(granted);
    });
}

/// A server holds locks also when it takes no more sessions.
#[test]
fn waiters_without_a_place_on_the_server_are_served_too() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let provider = connected(server.builder().connect_timeout(PATIENCE)).await;
        let guard = take(&holder, "order").await;
        server.allow_sessions(2).await;
        let waiting = tokio::spawn(async move { lock(&provider, "order").acquire().await });
        tokio::time::sleep(3 * PATIENCE).await;
        assert!(!waiting.is_finished(), "{:?}", waiting.await);
        assert_eq!(server.sessions().await, 2);
        guard.release().await.unwrap();
        waiting.await.unwrap().unwrap().release().await.unwrap();
    });
}

/// No session can ask about the waiter, but its connection works.
#[test]
fn a_waiter_keeps_its_place_when_no_other_session_is_to_be_had() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let builder = server.builder().lease(Duration::from_secs(3));
        let provider = connected(builder.connect_timeout(PATIENCE)).await;
        let guard = take(&holder, "order").await;
        let waiting = tokio::spawn(async move { lock(&provider, "order").acquire().await });
        server.until_waiting(1).await;
        let waits = server.count(WAITS).await;
        server.allow_sessions(2).await;
        let shared = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                      WHERE usename = 'app' AND pid NOT IN \
                      (SELECT pid FROM pg_locks WHERE locktype = 'advisory')";
        assert_eq!(server.count(shared).await, 1);
        tokio::time::sleep(5 * PATIENCE).await;
        assert!(!waiting.is_finished(), "{:?}", waiting.await);
        assert_eq!(server.count(WAITS).await, waits);
        assert_eq!(server.sessions().await, 2);
        guard.release().await.unwrap();
        let next = waiting.await.unwrap().unwrap();
        assert!(!next.is_lost());
        next.release().await.unwrap();
    });
}

const PATIENCE: Duration = Duration::from_secs(1);
const WAITS: &str = "SELECT pid::int8 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
/// The query for the moment at which the waiter began to wait.
const BEGAN: &str = "SELECT (extract(epoch FROM query_start) * 1000000)::int8 \
                     FROM pg_locks JOIN pg_stat_activity USING (pid) \
                     WHERE locktype = 'advisory' AND NOT granted";

#[test]
fn a_waiting_request_that_somebody_cancels_is_made_again() {
    with_server(|server| async move {
        let (holder, provider) = (server.provider().await, server.provider().await);
        let guard = take(&holder, "order").await;
        let waiting = tokio::spawn(async move { lock(&provider, "order").acquire().await });
        server.until_waiting(1).await;
        let began = server.count(BEGAN).await;
        let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_locks \
                      WHERE locktype = 'advisory' AND NOT granted";
        assert_eq!(server.count(cancel).await, 1);
        eventually("it waits again", BOUND, || async {
            let again = server.raw.query_opt(BEGAN, &[]).await.unwrap();
            let again: Option<i64> = again.map(|row| row.get(0));
            again.is_some_and(|again| again != began)
        })
        .await;
        guard.release().await.unwrap();
        waiting.await.unwrap().unwrap().release().await.unwrap();
    });
}

/// A waiter's questions to the server take no session of a lease of their own.
#[test]
fn a_wait_with_another_lease_opens_no_session_again_and_again() {
    with_server(|server| async move {
        const LEASE: Duration = Duration::from_millis(500);
        let holder = server.provider().await;
        let provider = connected(server.builder().lease(Duration::from_secs(30))).await;
        let guard = take(&holder, "order").await;
        let acquiring = lock(&provider, "order").lease(LEASE);
        let waiting = tokio::spawn(async move { acquiring.acquire().await });
        server.until_waiting(1).await;
        // Besides, there are looks where the server's name leads, which end at once.
        let (of_ours, now) = (
            "usename = 'app'",
            "SELECT (extract(epoch FROM now()) * 1e6)::int8",
        );
        let before = server.count(now).await;
        let kept = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE {of_ours} \
             AND extract(epoch FROM backend_start) * 1e6 < {before}"
        );
        let opened = server.count(&kept).await;
        tokio::time::sleep(8 * LEASE).await;
        assert_eq!(server.count(&kept).await, opened, "they stay");
        eventually("and none was opened besides", BOUND, || async {
            server.sessions().await == opened
        })
        .await;
        guard.release().await.unwrap();
        waiting.await.unwrap().unwrap().release().await.unwrap();
    });
}
