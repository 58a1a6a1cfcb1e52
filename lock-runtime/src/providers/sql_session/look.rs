//! Looking where the server's name leads, while locks are held or waited for. A session of a server
//! that was replaced goes on working, and shows nothing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::pool::Pool;
use super::traits::LockSession;
use crate::clock::Timestamp;
use crate::future::select;

/// Looks once a lease, the shortest in use, while there is one in use.
pub(super) async fn look_again_and_again<S: LockSession>(pool: Weak<Pool<S>>) {
    let mut last = Timestamp::now();
    while let Some((leases, default)) = pool
        .upgrade()
        .map(|pool| (Arc::clone(&pool.leases), pool.settings.lease))
    {
        let due = last + leases.plan(default);
        if !due.has_passed() {
            let sleep = tokio::time::sleep(due.remaining());
            select(sleep, leases.shorter.notified()).await;
            continue;
        }
        last = Timestamp::now();
        if leases.were_used()
            && let Some(pool) = pool.upgrade()
        {
            look(&pool).await;
        }
    }
}

/// Looks before a lock of this lease is asked for, if nobody has looked for so long. A session that
/// was idle meanwhile may be one of a server that was replaced long ago.
pub(super) async fn look_before<S: LockSession>(pool: &Pool<S>, lease: Duration) {
    if pool.leases.are_looked_at_within(lease) {
        return;
    }
    let looking = async {
        let _one = pool.leases.looking.lock().await;
        if !pool.leases.are_looked_at_within(lease) {
            // Boxed, since every acquisition would make room for it, and hardly any needs it.
            Box::pin(look(pool)).await;
        }
    };
    let patience = pool.settings.patience(lease);
    if tokio::time::timeout(patience, looking).await.is_err() {
        pool.leases.looked(Timestamp::now());
    }
}

/// Looks, and believes what that shows. A look that fails shows nothing.
async fn look<S: LockSession>(pool: &Pool<S>) {
    let at = Timestamp::now();
    let shown = S::look(&pool.settings).await;
    pool.leases.looked(at);
    if let Err(error) = shown.and_then(|server| pool.note_server(server, at)) {
        tracing::debug!(%error, "could not look where the server's name leads");
    }
}
