//! Locks in transactions of one's own, by the SQL that a key gives.

use lock_runtime::postgres::advisory_key;
use lock_runtime::{LockErrorKind, LockMode};
use lock_tests::any_lock::permits;
use tokio_postgres::error::SqlState;

use crate::common::{assert_refused, enter, raw, try_enter, with_server};
use lock_runtime::LockProvider;

#[test]
fn a_transaction_reads_and_writes() {
    with_server(|server| async move {
        let provider = server.provider().await;
        for name in ["orders:42", "a longer name"] {
            let key = advisory_key(name);
            let run = async |sql: String| server.raw.batch_execute(&sql).await.unwrap();
            let tries = async |mode| -> bool {
                let sql = key.try_in_transaction(mode).unwrap();
                server.raw.query_one(&sql, &[]).await.unwrap().get(0)
            };
            let reads = key.lock_in_transaction(LockMode::Read).unwrap();
            run(format!("BEGIN; {reads}")).await;
            assert_refused(&provider, name, LockMode::Write).await;
            let read = try_enter(&provider, name, LockMode::Read).await.unwrap();
            assert!(!tries(LockMode::Write).await, "we read too");
            provider.release(&read).await.unwrap();
            assert!(tries(LockMode::Write).await);
            run("COMMIT".to_owned()).await;
            let writes = key.lock_in_transaction(LockMode::Write).unwrap();
            run(format!("BEGIN; {writes}")).await;
            assert_refused(&provider, name, LockMode::Read).await;
            run("ROLLBACK".to_owned()).await;
            let write = enter(&provider, name, LockMode::Write).await;
            run("BEGIN".to_owned()).await;
            assert!(!tries(LockMode::Read).await && !tries(LockMode::Exclusive).await);
            run("COMMIT".to_owned()).await;
            provider.release(&write).await.unwrap();
        }
    });
}

#[test]
fn what_one_statement_cannot_take_is_said() {
    let key = advisory_key("order");
    for mode in [LockMode::Upgradeable, permits(1, 2)] {
        for refused in [key.lock_in_transaction(mode), key.try_in_transaction(mode)] {
            assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Unsupported);
        }
    }
}

/// The guide says how to bound a wait: the timeout outlives the savepoint, so it is set back.
#[test]
fn a_wait_in_a_transaction_has_a_bound() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let held = enter(&provider, "order", LockMode::Write).await;
        let client = raw(&server.process).await;
        let locks = advisory_key("order")
            .lock_in_transaction(LockMode::Read)
            .unwrap();
        client
            .batch_execute("BEGIN; SAVEPOINT before")
            .await
            .unwrap();
        let bounded = format!("SET LOCAL lock_timeout = '50ms'; {locks}");
        let error = client.batch_execute(&bounded).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE));
        let back = "ROLLBACK TO before";
        client
            .batch_execute(back)
            .await
            .expect("the transaction goes on");
        provider.release(&held).await.unwrap();
        client.batch_execute(&bounded).await.expect("it is free");
        client.batch_execute("RELEASE before").await.unwrap();
        let shown = client.query_one("SHOW lock_timeout", &[]).await.unwrap();
        assert_eq!(shown.get::<_, &str>(0), "50ms", "it outlives the savepoint");
        client
            .batch_execute("SET LOCAL lock_timeout = DEFAULT")
            .await
            .unwrap();
        let shown = client.query_one("SHOW lock_timeout", &[]).await.unwrap();
        assert_eq!(shown.get::<_, &str>(0), "0");
        client.batch_execute("COMMIT").await.unwrap();
    });
}
