//! Renewing grants: one sign of life of a session renews all of its locks.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::held::{HeldLock, NOT_HELD, lost};
use super::session::Session;
use super::traits::{LockSession, SettingsOf};
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::Grant;

/// Confirms the session of each grant, once a session and all at the same time. Answers for each
/// grant, in order.
pub(super) async fn renew_all<S: LockSession>(
    settings: &SettingsOf<S>,
    grants: &[&Grant],
) -> Vec<Result<Timestamp, LockError>> {
    let mut sessions: Vec<Arc<Session<S>>> = Vec::new();
    let places: Vec<_> = grants
        .iter()
        .map(|grant| {
            let session = &grant.state::<HeldLock<S>>()?.session;
            let known = sessions
                .iter()
                .position(|known| Arc::ptr_eq(known, session));
            Some(known.unwrap_or_else(|| {
                sessions.push(Arc::clone(session));
                sessions.len() - 1
            }))
        })
        .collect();
    let mut answers: Vec<_> = sessions.iter().map(|_| Err(lost(NOT_HELD))).collect();
    let mut asking = JoinSet::new();
    for (place, session) in sessions.into_iter().enumerate() {
        let patience = settings.patience(session.lease());
        asking.spawn(async move { (place, confirm(&session, patience).await) });
    }
    while let Some(answered) = asking.join_next().await {
        if let Ok((place, answer)) = answered {
            answers[place] = answer;
        }
    }
    let answer = |place: Option<usize>| match place {
        Some(place) => answers[place].clone(),
        None => Err(lost(NOT_HELD)),
    };
    places.into_iter().map(answer).collect()
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
