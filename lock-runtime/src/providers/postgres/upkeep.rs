//! Looking after a session: keeping it alive, letting go of it, and taking back what the server may
//! still keep of one that was given up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::pool::Pool;
use super::server::Backend;
use super::session::Session;
use crate::providers::pause::jittered;
use crate::race::{First, first_of};

/// Pauses between attempts to end a session from another one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How long a session is kept that nobody needs.
const LONGEST_UNUSED: Duration = Duration::from_secs(10);

/// Keeps a session alive that is needed, and lets go of one that is not, or is dead.
pub(super) fn upkeep(pool: Weak<Pool>, session: &Arc<Session>) -> impl Future<Output = ()> + use<> {
    let (life, backend) = (Arc::clone(&session.life), session.backend);
    let mut lease = session.lease();
    let session = Arc::downgrade(session);
    async move {
        loop {
            match first_of(
                life.ended(),
                tokio::time::sleep((lease / 4).min(LONGEST_UNUSED / 4)),
            )
            .await
            {
                First::Left(known_to_server) => {
                    if let (Some(pool), Some(session)) = (pool.upgrade(), session.upgrade()) {
                        pool.spare(&session);
                    }
                    if !known_to_server {
                        terminate(&pool, backend).await;
                    }
                    if let Some(pool) = pool.upgrade() {
                        pool.is_gone(backend);
                    }
                    return;
                }
                First::Right(()) => {}
            }
            let Some(pool) = pool.upgrade() else {
                return;
            };
            // Without it, the end of its connection is all that is waited for.
            if let Some(session) = session.upgrade() {
                lease = session.lease();
                if !session.is_waiting() {
                    look_after(&pool, &session).await;
                }
            }
        }
    }
}

async fn look_after(pool: &Arc<Pool>, session: &Arc<Session>) {
    let lease = session.lease();
    if session.is_silent() {
        session
            .life
            .end("the server has not answered for a whole lease");
        return;
    }
    if session.is_unused_for(LONGEST_UNUSED) && pool.spare(session) {
        // Closed when the last one who still has it lets go.
        return;
    }
    if (session.confirmed_at() + lease / 4).has_passed()
        && let Err(error) = session.confirm(pool.settings.patience(lease)).await
    {
        tracing::debug!(%error, "a session did not answer");
    }
}

/// The connection of a session that was given up may be dead, so that the server does not hear of
/// its end; one that waits there would go on waiting. Whoever it belongs to may end it from another
/// session.
async fn terminate(pool: &Weak<Pool>, backend: Backend) {
    let mut pause = FIRST_PAUSE;
    while let Some(pool) = pool.upgrade() {
        if let Ok(session) = pool.shared(pool.settings.lease).await {
            if !session.knows(backend) {
                // Nobody can reach it there, and nobody is sent there any more.
                return;
            }
            let patience = pool.settings.patience(session.lease());
            match session.within(patience, session.terminate(backend)).await {
                Ok(true) => tracing::debug!(pid = backend.pid, "ended a session from another one"),
                // It was gone.
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "could not end a session from another one"),
            }
        }
        drop(pool);
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
