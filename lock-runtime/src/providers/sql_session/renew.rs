//! Renewing grants: one sign of life of a session renews all of its locks.

use std::sync::Arc;
use std::time::Duration;

use super::held::{HeldLock, NOT_HELD, lost};
use super::session::Session;
use super::traits::{LockSession, SettingsOf};
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::Grant;
use crate::providers::kit::session::renew_by_session;

/// Confirms the session of each grant, once a session and all at the same time. Answers for each
/// grant, in order.
pub(super) async fn renew_all<S: LockSession>(
    settings: &SettingsOf<S>,
    grants: &[&Grant],
) -> Vec<Result<Timestamp, LockError>> {
    let answers = renew_by_session(grants, session_of::<S>, |session, _| {
        Box::pin(confirm(session, settings.patience(session.lease())))
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
    session: &Arc<Session<S>>,
    patience: Duration,
) -> Result<Timestamp, LockError> {
    let answer = match session.liveness().why_ended() {
        None => session.confirm(patience).await,
        Some(why) => return Err(lost(why)),
    };
    match session.liveness().why_ended() {
        None => answer,
        Some(why) => Err(lost(why)),
    }
}
