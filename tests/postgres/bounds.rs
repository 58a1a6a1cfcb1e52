//! The share of the server that the library uses: the rest belongs to applications.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_runtime::{LockErrorKind, LockProvider};
use lock_tests::postgres::PostgresOptions;
use lock_tests::{FaultProxy, eventually};
use tokio::task::JoinSet;

use crate::common::{BOUND, connected, lock, take, through, with_server, with_server_of};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_thousand_leases_need_few_sessions() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let mut guards = Vec::new();
        let mut most = 0;
        for number in 0..1_000 {
            // Around the default, and then from a second to a quarter of an hour.
            let lease = match number % 2 {
                0 => Duration::from_millis(30_000 + number),
                _ => Duration::from_secs(1 + number),
            };
            let lock = lock(&provider, &format!("order:{number}")).lease(lease);
            guards.push(lock.acquire().await.expect("nobody else wants it"));
            if number % 50 == 0 {
                most = most.max(server.sessions().await);
            }
        }
        let most = most.max(server.sessions().await);
        assert!(most <= 8, "{most} sessions");
        assert!(guards.iter().all(|guard| !guard.is_lost()));
        drop(guards);
        eventually("sessions that nobody needs are closed", SOON, || async {
            server.sessions().await <= 1
        })
        .await;
    });
}

/// A lock of a short lease that is on a session of a long one is lost in time all the same.
#[test]
fn the_lease_of_the_caller_bounds_the_validity() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let provider = connected(through(&proxy).max_sessions(2)).await;
        let _long = take(&provider, "long").await;
        let short = lock(&provider, "short").lease(Duration::from_secs(2));
        let guard = short.acquire().await.unwrap();
        assert_eq!(server.sessions().await, 1);
        proxy.set(|fault| fault.to_client = lock_tests::proxy::Flow::Swallow);
        tokio::time::timeout(Duration::from_secs(3), guard.lost())
            .await
            .expect("lost at the end of its own lease");
    });
}

/// Six busy processes use a server with few connections.
#[test]
fn applications_can_connect_at_any_moment() {
    let options = PostgresOptions::default().config("max_connections = 30");
    with_server_of(options, |server| async move {
        const PROCESSES: usize = 6;
        const NAMES: usize = 40;
        const CONNECTIONS: usize = 30;
        let mut tasks = JoinSet::new();
        let ends = Arc::new(AtomicBool::new(false));
        for _ in 0..PROCESSES {
            let provider = server.provider().await;
            for name in 0..NAMES {
                let lock = lock(&provider, &format!("order:{name}"));
                let ends = Arc::clone(&ends);
                tasks.spawn(async move {
                    let mut sections = 0;
                    while !ends.load(Ordering::Relaxed) {
                        let guard = lock.acquire().await.expect("the server answers");
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        guard.release().await.expect("it was held");
                        sections += 1;
                    }
                    sections
                });
            }
        }
        for _ in 0..CONNECTIONS {
            server
                .process
                .psql("app", "SELECT 1")
                .expect("an application connects");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ends.store(true, Ordering::Relaxed);
        let sections = tasks.join_all().await;
        assert!(
            sections.iter().all(|sections| *sections > 0),
            "{sections:?}"
        );
    });
}

#[test]
fn more_locks_than_the_server_can_do_with_are_refused() {
    let options = PostgresOptions::default()
        .config("max_connections = 30")
        .config("max_locks_per_transaction = 10");
    with_server_of(options, |server| async move {
        let provider = server.provider().await;
        let mut guards = Vec::new();
        let refused = loop {
            let lock = lock(&provider, &format!("order:{}", guards.len()));
            match lock.try_acquire().await {
                Ok(guard) => guards.push(guard.expect("nobody else wants it")),
                Err(error) => break error,
            }
        };
        assert_eq!(guards.len(), 75, "a quarter of 300");
        assert_eq!(refused.kind(), LockErrorKind::ProviderUnavailable);
        assert!(
            refused.to_string().contains("`max_locks` allows, 75"),
            "{refused}"
        );
        server
            .process
            .psql("app", "SELECT 1")
            .expect("an application connects");
        guards.pop();
        eventually("another may be had", BOUND, || async {
            matches!(lock(&provider, "another").try_acquire().await, Ok(Some(_)))
        })
        .await;
        assert!(provider.capabilities().lease.is_some());
    });
}

/// Somebody else has filled the server's table of locks.
#[test]
fn a_full_table_of_locks_is_left_alone_for_a_while() {
    let options = PostgresOptions::default()
        .config("max_connections = 20")
        .config("max_locks_per_transaction = 10");
    with_server_of(options, |server| async move {
        let provider = server.provider().await;
        let kept = take(&provider, "kept").await;
        let fill = "DO $$ BEGIN FOR i IN 1..100000 LOOP PERFORM pg_advisory_lock(i); END LOOP; \
                    EXCEPTION WHEN out_of_memory THEN NULL; END $$";
        server.raw.batch_execute(fill).await.unwrap();
        let mut error = None;
        for number in 0..200 {
            let lock = lock(&provider, &format!("order:{number}"));
            if let Err(refused) = lock.try_acquire().await {
                error = Some(refused);
                break;
            }
        }
        let error = error.expect("the table is full");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
        assert!(
            error.to_string().contains("table of locks is full"),
            "{error}"
        );
        server
            .raw
            .batch_execute("SELECT pg_advisory_unlock_all()")
            .await
            .unwrap();
        let again = lock(&provider, "another").try_acquire().await.unwrap_err();
        assert!(
            again.to_string().contains("table of locks is full"),
            "{again}"
        );
        assert!(!kept.is_lost());
        eventually("it is asked again", BOUND, || async {
            matches!(lock(&provider, "another").try_acquire().await, Ok(Some(_)))
        })
        .await;
    });
}

/// Something between client and server closes all connections again and again, and does not tell
/// the server of it in time.
#[test]
fn connections_that_are_closed_again_and_again_leave_few_sessions_behind() {
    with_server(|server| async move {
        const WAITERS: usize = 16;
        let proxy = FaultProxy::start(server.process.port()).await;
        let provider = connected(through(&proxy)).await;
        let holder = server.provider().await;
        let mut guards = Vec::new();
        let mut waiting = JoinSet::new();
        for number in 0..WAITERS {
            let name = format!("order:{number}");
            guards.push(take(&holder, &name).await);
            let lock = lock(&provider, &name);
            waiting.spawn(async move { lock.acquire().await });
        }
        let mut most = 0;
        for _ in 0..16 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            proxy.reset();
            most = most.max(server.sessions().await);
        }
        assert!(most <= 64, "{most} sessions");
        for guard in guards {
            guard.release().await.unwrap();
        }
        while let Some(waited) = waiting.join_next().await {
            let guard = waited.unwrap().expect("the server was up all the time");
            guard.release().await.unwrap();
        }
    });
}
