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
const SHARE_WITH_TOKEN: &str = "SELECT CASE WHEN pg_try_advisory_lock_shared($1) \
     THEN pg_current_xact_id()::text::int8 END";
const UNSHARE: &str = "SELECT pg_advisory_unlock_shared($1)";
const UNLOCK: &str = "SELECT pg_advisory_unlock($1)";

#[derive(Clone)]
pub(crate) struct RawPostgres(Arc<Prepared>);

struct Prepared {
    client: Client,
    lock: Statement,
    lock_with_token: Statement,
    unlock: Statement,
    share_with_token: Statement,
    unshare: Statement,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Lock,
    LockWithToken,
    ShareWithToken,
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
            share_with_token: prepare(SHARE_WITH_TOKEN).await,
            unshare: prepare(UNSHARE).await,
            client,
        }))
    }

    /// Makes a lock.
    pub(crate) fn lock(&self, number: u64, ask: Ask) -> impl Lock {
        RawLock {
            raw: self.clone(),
            key: -(number as i64),
            ask,
        }
    }
}

struct RawLock {
    raw: RawPostgres,
    key: i64,
    ask: Ask,
}

impl Lock for RawLock {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let raw = &*self.raw.0;
        let key: &(dyn ToSql + Sync) = &self.key;
        let parameters = &[key];
        let (taking, giving) = match self.ask {
            Ask::Lock => (&raw.lock, &raw.unlock),
            Ask::LockWithToken => (&raw.lock_with_token, &raw.unlock),
            Ask::ShareWithToken => (&raw.share_with_token, &raw.unshare),
        };
        let row = raw.client.query_one(taking, parameters).await;
        let row = row.expect("the server answers");
        let taken = match self.ask {
            Ask::Lock => row.get(0),
            _ => row.get::<_, Option<i64>>(0).is_some(),
        };
        assert!(taken, "it is free");
        section.await;
        let row = raw.client.query_one(giving, parameters).await;
        let unlocked: bool = row.expect("the server answers").get(0);
        assert!(unlocked, "it was held");
    }
}
