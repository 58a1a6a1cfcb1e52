//! The statements that any advisory lock needs at least, on a connection that is driven, as this
//! library's are, by a runtime of another thread.

use std::future::Future;
use std::sync::Arc;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

use crate::lock::Lock;

const LOCK: &str = "SELECT pg_try_advisory_lock($1)";
const LOCK_WITH_TOKEN: &str =
    "SELECT CASE WHEN pg_try_advisory_lock($1) THEN pg_current_xact_id()::text::int8 END";
const UNLOCK: &str = "SELECT pg_advisory_unlock($1)";

#[derive(Clone)]
pub(crate) struct RawPostgres(Arc<Prepared>);

struct Prepared {
    client: Client,
    lock: Statement,
    lock_with_token: Statement,
    unlock: Statement,
}

impl RawPostgres {
    pub(crate) async fn connect(url: &str) -> Self {
        let url = url.to_owned();
        let (connected, client) = oneshot::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(async {
                let connecting = tokio_postgres::connect(&url, NoTls).await;
                let (client, connection) = connecting.expect("the server answers");
                let _ = connected.send(client);
                connection.await.expect("it lasts as long as its client");
            });
        });
        let client = client.await.expect("connected");
        let prepare = async |sql| client.prepare(sql).await.expect("valid SQL");
        Self(Arc::new(Prepared {
            lock: prepare(LOCK).await,
            lock_with_token: prepare(LOCK_WITH_TOKEN).await,
            unlock: prepare(UNLOCK).await,
            client,
        }))
    }

    /// Makes a lock, whose grants have a `token` if that is wanted.
    pub(crate) fn lock(&self, number: u64, token: bool) -> impl Lock {
        RawLock {
            raw: self.clone(),
            key: -(number as i64),
            token,
        }
    }
}

struct RawLock {
    raw: RawPostgres,
    key: i64,
    token: bool,
}

impl Lock for RawLock {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let raw = &*self.raw.0;
        let key: &(dyn ToSql + Sync) = &self.key;
        let parameters = &[key];
        if self.token {
            let row = raw.client.query_one(&raw.lock_with_token, parameters).await;
            let token: Option<i64> = row.expect("the server answers").get(0);
            assert!(token.is_some(), "it is free");
        } else {
            let row = raw.client.query_one(&raw.lock, parameters).await;
            let locked: bool = row.expect("the server answers").get(0);
            assert!(locked, "it is free");
        }
        section.await;
        let row = raw.client.query_one(&raw.unlock, parameters).await;
        let unlocked: bool = row.expect("the server answers").get(0);
        assert!(unlocked, "it was held");
    }
}
