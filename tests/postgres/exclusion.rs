//! Other programs and we exclude each other on the same locks, also on many at once.

use lock_runtime::postgres::{AdvisoryKey, advisory_key};

use crate::common::{BOUND, lock, take, token, with_server};

#[test]
fn psql_excludes_and_is_excluded() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let guard = take(&provider, "orders:42").await;
        let try_it = |name: &str| {
            let sql = format!("SELECT pg_try_advisory_lock({})", advisory_key(name));
            server.process.psql("app", &sql).unwrap()
        };
        assert_eq!(try_it("orders:42"), "f");
        assert_eq!(try_it("orders:43"), "t");
        let row = server
            .raw
            .query_one(
                "SELECT classid::int8, objid::int8, objsubid::int4 FROM pg_locks \
                 WHERE locktype = 'advisory' AND objid::int8 = 1558000740",
                &[],
            )
            .await
            .unwrap();
        let seen: (i64, i64, i16) = (row.get(0), row.get(1), row.get::<_, i32>(2) as i16);
        assert_eq!(seen, (3_754_632_798, 1_558_000_740, 2));
        guard.release().await.unwrap();
        assert_eq!(try_it("orders:42"), "t", "and psql's end frees it");

        // A bigint, with a prefix, in somebody's own transaction.
        let provider = crate::common::connected(server.builder().key_prefix("MyApp1:")).await;
        let key = advisory_key("MyApp1:nightly");
        assert!(matches!(key, AdvisoryKey::Int8(_)));
        let sql = format!("BEGIN; SELECT pg_advisory_xact_lock({key})");
        server.raw.batch_execute(&sql).await.unwrap();
        assert!(
            lock(&provider, "nightly")
                .try_acquire()
                .await
                .unwrap()
                .is_none()
        );
        server.raw.batch_execute("COMMIT").await.unwrap();
        take(&provider, "nightly").await.release().await.unwrap();
    });
}

/// A witness that holds the lock first is waited for, in the server's queue.
#[test]
fn what_psql_holds_is_waited_for() {
    with_server(|server| async move {
        let provider = server.provider().await;
        for name in ["orders:42", "a longer name"] {
            let key = advisory_key(name);
            let holding = {
                let sql = format!("SELECT pg_advisory_lock({key}), pg_sleep(1)");
                let psql = server.process.psql_command("app", &sql);
                tokio::task::spawn_blocking(move || { psql }.output().unwrap())
            };
            lock_tests::eventually("psql holds it", BOUND, || async {
                server.locks(true).await == 1
            })
            .await;
            assert!(lock(&provider, name).try_acquire().await.unwrap().is_none());
            let guard = take(&provider, name).await;
            assert!(holding.await.unwrap().status.success());
            guard.release().await.unwrap();
        }
    });
}

/// The server would let a session take one key twice.
#[test]
fn two_names_of_one_key_exclude_each_other() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let name = "a";
        let AdvisoryKey::Int4Pair(high, low) = advisory_key(name) else {
            panic!("a pair")
        };
        let same = format!("{high:08x},{low:08x}");
        assert_eq!(advisory_key(&same), advisory_key(name));
        let guard = take(&provider, name).await;
        assert!(
            lock(&provider, &same)
                .try_acquire()
                .await
                .unwrap()
                .is_none()
        );
        let waiting = {
            let provider = provider.clone();
            tokio::spawn(async move { take(&provider, &same).await })
        };
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(!waiting.is_finished());
        let first = token(&guard);
        guard.release().await.unwrap();
        assert!(token(&waiting.await.unwrap()) > first);
    });
}

#[test]
fn a_thousand_locks_take_a_handful_of_sessions() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let mut taking = tokio::task::JoinSet::new();
        for number in 0..1_000 {
            let provider = provider.clone();
            taking.spawn(async move { take(&provider, &format!("order:{number}")).await });
        }
        let guards = taking.join_all().await;
        assert_eq!(server.locks(true).await, 1_000);
        let sessions = server.sessions().await;
        assert!(sessions <= 5, "{sessions} sessions");
        for guard in guards {
            assert!(!guard.is_lost());
            guard.release().await.unwrap();
        }
        assert_eq!(server.locks(true).await, 0);
    });
}
