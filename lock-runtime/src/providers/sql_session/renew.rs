//! Renewing grants: one sign of life of a session renews all of its locks.

use std::sync::Arc;
use std::time::Duration;

use super::held::{HeldLock, NOT_HELD, lost};
use super::pool::Pool;
use super::session::Session;
use super::traits::LockSession;
use crate::LockError;
use crate::LockErrorKind;
use crate::clock::Timestamp;
use crate::provider::Grant;
use crate::providers::kit::session::renew_by_session;

/// Confirms the session of each grant, once a session and all at the same time. Answers for each
/// grant, in order.
pub(super) async fn renew_all<S: LockSession>(
    pool: &Arc<Pool<S>>,
    grants: &[&Grant],
) -> Vec<Result<Timestamp, LockError>> {
    let answers = renew_by_session(grants, session_of::<S>, |session, _| {
        Box::pin(confirm(pool, session))
    });
    let not_held = || Err(lost(NOT_HELD));
    let answers = answers.await.into_iter();
    answers
        .map(|answer| answer.unwrap_or_else(not_held))
        .collect()
}

fn session_of<S: LockSession>(grant: &Grant) -> Option<&Arc<Session<S>>> {
    Some(&grant.state::<HeldLock<S>>()?.session)
}

async fn confirm<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
) -> Result<Timestamp, LockError> {
    let patience = pool.settings.patience(session.lease());
    let answer = match session.liveness().why_ended() {
        None if session.is_waiting() => see(pool, session, patience).await,
        None => session.confirm(patience).await,
        Some(why) => return Err(lost(why)),
    };
    match session.liveness().why_ended() {
        None => answer,
        Some(why) => Err(lost(why)),
    }
}

/// Has another session see that this one is there, which waits to hold alone what it shares. The
/// server keeps it while it waits, and for the lease after that.
async fn see<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
    patience: Duration,
) -> Result<Timestamp, LockError> {
    let other = pool.shared(pool.settings.lease).await?;
    let sent_at = Timestamp::now();
    let seen = other.client.look_at(session.backend);
    match other.within(patience, seen).await? {
        seen if seen.waits && other.knows(session.backend) => Ok(sent_at),
        // It has just ended, so the session can answer by itself.
        _ if !session.is_waiting() => session.confirm(patience).await,
        _ => Err(LockError::new(LockErrorKind::ProviderUnavailable)
            .with_detail("the server does not say that the session waits")),
    }
}
