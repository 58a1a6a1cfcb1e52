//! Other crates' locks on PostgreSQL.

use std::future::Future;

use distributed_lock_core::traits::{DistributedLock as _, LockHandle as _, LockProvider as _};
use distributed_lock_postgres::PostgresLockProvider;
use distributed_lock_postgres::lock::PostgresDistributedLock;
use sqlx::PgPool;
use sqlx::postgres::{PgAdvisoryLock, PgPoolOptions};

use crate::lock::Lock;

pub(crate) async fn pool(url: &str) -> PgPool {
    // Those who hold a lock and those who wait for it take a connection each.
    let pool = PgPoolOptions::new().max_connections(4);
    pool.connect(url).await.expect("the server answers")
}

/// sqlx's lock, on a connection of the pool.
pub(crate) struct Sqlx {
    pub(crate) pool: PgPool,
    pub(crate) lock: PgAdvisoryLock,
}

impl Lock for Sqlx {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let connection = self.pool.acquire().await.expect("the server answers");
        let guard = self.lock.acquire(connection).await;
        section.await;
        let guard = guard.expect("the server answers");
        guard.release_now().await.expect("it was held");
    }
}

pub(crate) async fn distributed_lock(url: &str) -> PostgresLockProvider {
    let provider = PostgresLockProvider::builder().pool(pool(url).await);
    provider.build().await.expect("a pool is all that it needs")
}

impl Lock for PostgresDistributedLock {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let handle = self.acquire(None).await.expect("the server answers");
        section.await;
        handle.release().await.expect("it was held");
    }
}

pub(crate) fn create(provider: &PostgresLockProvider, number: u64) -> PostgresDistributedLock {
    provider.create_lock(&format!("peer:{number}"))
}
