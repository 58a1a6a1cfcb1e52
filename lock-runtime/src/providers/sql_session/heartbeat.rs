//! Keeping a session alive while it is needed, closing it when it is not, and ending what the
//! server may still keep of one that was given up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::session::Session;
use super::traits::{BackendOf, LockSession};
use crate::LockError;
use crate::future::{First, select};
use crate::provider::BoxFuture;
use crate::providers::kit::backoff::jittered;

/// Pauses between attempts to end a session from another one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How long a session is kept that nobody needs.
const LONGEST_UNUSED: Duration = Duration::from_secs(10);

/// What sessions belong to.
pub(super) trait SessionOwner<S: LockSession>: Send + Sync {
    /// Lets go of a session that nobody needs; false if it is the last one, which is kept.
    fn close_unneeded(&self, session: &Arc<Session<S>>) -> bool;

    /// Forgets a session that the server has no more, or that nobody can ask it about.
    fn forget(&self, backend: BackendOf<S>);

    /// Returns how long a request may take that must not take longer than a part of a lease.
    fn patience(&self, lease: Duration) -> Duration;

    /// Returns a session by which another one can be ended.
    fn any_session(self: Arc<Self>) -> BoxFuture<'static, Result<Arc<Session<S>>, LockError>>;
}

/// Keeps a session alive that is needed, and lets go of one that is not, or is dead.
pub(super) fn heartbeat<S: LockSession>(
    owner: Weak<dyn SessionOwner<S>>,
    session: &Arc<Session<S>>,
) -> impl Future<Output = ()> + Send + use<S> {
    let (liveness, backend) = (Arc::clone(session.liveness()), session.backend);
    let mut lease = session.lease();
    let session = Arc::downgrade(session);
    async move {
        loop {
            let pause = tokio::time::sleep((lease / 4).min(LONGEST_UNUSED / 4));
            if let First::Left(known_to_server) = select(liveness.ended(), pause).await {
                if let (Some(owner), Some(session)) = (owner.upgrade(), session.upgrade()) {
                    owner.close_unneeded(&session);
                }
                if !known_to_server {
                    terminate(&owner, backend).await;
                }
                if let Some(owner) = owner.upgrade() {
                    owner.forget(backend);
                }
                return;
            }
            let Some(owner) = owner.upgrade() else {
                return;
            };
            // When nobody has the session any more, only the end of its connection is waited for.
            if let Some(session) = session.upgrade() {
                lease = session.lease();
                if !session.is_waiting() {
                    look_after(&*owner, &session).await;
                }
            }
        }
    }
}

async fn look_after<S: LockSession>(owner: &dyn SessionOwner<S>, session: &Arc<Session<S>>) {
    let lease = session.lease();
    if session.is_silent() {
        session.end("the server has not answered for a whole lease");
        return;
    }
    if session.is_unused_for(LONGEST_UNUSED) && owner.close_unneeded(session) {
        // Its connection is closed when the last one who still has it lets go.
        return;
    }
    if (session.confirmed_at() + lease / 4).has_passed()
        && let Err(error) = session.confirm(owner.patience(lease)).await
    {
        tracing::debug!(%error, "a session did not answer");
    }
}

/// Ends a session that was given up from another one. Its connection may be dead, so that the
/// server does not hear of its end; and if it waits there, it would go on waiting. Its user may end
/// it from another session.
async fn terminate<S: LockSession>(owner: &Weak<dyn SessionOwner<S>>, backend: BackendOf<S>) {
    let mut pause = FIRST_PAUSE;
    while let Some(owner) = owner.upgrade() {
        if let Ok(session) = Arc::clone(&owner).any_session().await {
            if !session.knows(backend) {
                // Nobody can reach it there, and nobody is sent there any more.
                return;
            }
            let patience = owner.patience(session.lease());
            let terminating = session.client.terminate(backend);
            match session.within(patience, terminating).await {
                Ok(true) => {
                    tracing::debug!(pid = %backend.pid, "ended a session from another one");
                }
                // It was gone.
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "could not end a session from another one"),
            }
        }
        drop(owner);
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
