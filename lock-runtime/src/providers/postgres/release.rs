//! Releasing and renewing.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::acquire::{Held, NOT_HELD};
use super::pool::Pool;
use super::session::Session;
use super::undo::undo;
use crate::clock::Timestamp;
use crate::provider::Grant;
use crate::{LockError, LockErrorKind};

pub(super) async fn release(pool: &Arc<Pool>, grant: &Grant) -> Result<(), LockError> {
    let Some((held, reservation)) = grant
        .state::<Held>()
        .and_then(|held| Some((held, held.take_reservation()?)))
    else {
        return Err(lost(NOT_HELD));
    };
    let session = &held.session;
    if let Some(why) = session.life.why_ended() {
        return Err(lost(why));
    }
    session.life.let_go(reservation.keys.lock);
    let patience = pool.settings.patience(grant.lease());
    match session
        .within(patience, session.unlock(reservation.keys))
        .await
    {
        Ok(true) => {
            drop(reservation);
            pool.give_back(session);
            Ok(())
        }
        Ok(false) => {
            session.life.end(NOT_HELD);
            Err(lost(NOT_HELD))
        }
        // The session's end has released it too.
        Err(error) => {
            undo(pool, session, reservation, &error);
            Err(error)
        }
    }
}

/// Confirms the session of each grant, once a session and all at the same time.
pub(super) async fn renew_all(
    pool: &Arc<Pool>,
    grants: &[&Grant],
) -> Vec<Result<Timestamp, LockError>> {
    let session = |grant: &&Grant| grant.state::<Held>().map(|held| Arc::clone(&held.session));
    let mut sessions: Vec<Arc<Session>> = Vec::new();
    let places: Vec<_> = grants
        .iter()
        .map(|grant| {
            let session = session(grant)?;
            let known = sessions
                .iter()
                .position(|known| Arc::ptr_eq(known, &session));
            Some(known.unwrap_or_else(|| {
                sessions.push(session);
                sessions.len() - 1
            }))
        })
        .collect();
    let mut answers: Vec<_> = sessions.iter().map(|_| Err(lost(NOT_HELD))).collect();
    let mut asking = JoinSet::new();
    for (place, session) in sessions.into_iter().enumerate() {
        let patience = pool.settings.patience(session.lease());
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

async fn confirm(
    session: &Arc<Session>,
    patience: std::time::Duration,
) -> Result<Timestamp, LockError> {
    let answer = match session.life.why_ended() {
        None => session.confirm(patience).await,
        Some(why) => return Err(lost(why)),
    };
    match session.life.why_ended() {
        None => answer,
        Some(why) => Err(lost(why)),
    }
}

fn lost(why: &str) -> LockError {
    LockError::new(LockErrorKind::Lost).with_detail(why)
}
