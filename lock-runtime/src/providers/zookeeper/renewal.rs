//! Renewing: one request confirms a session, and with it all its grants.

use std::sync::Arc;

use super::error::{Fault, lock_error, lost};
use super::held::{Held, REMOVED};
use super::session::{ENDED, Session};
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::Grant;

type Answer = Result<Timestamp, LockError>;

/// Answers for each grant, in order.
pub(super) async fn renew_all(grants: &[&Grant]) -> Vec<Answer> {
    let mut answers: Vec<Answer> = grants
        .iter()
        .map(|grant| Err(loss(grant).unwrap_or_else(|| lost(REMOVED))))
        .collect();
    let mut sessions: Vec<&Arc<Session>> = Vec::new();
    for session in grants
        .iter()
        .filter_map(|grant| held(grant))
        .map(|held| &held.node.session)
    {
        if !sessions.iter().any(|other| Arc::ptr_eq(other, session)) {
            sessions.push(session);
        }
    }
    for session in sessions {
        let of_session = |grant: &Grant| {
            held(grant).is_some_and(|held| Arc::ptr_eq(&held.node.session, session))
        };
        let own: Vec<_> = grants
            .iter()
            .copied()
            .filter(|grant| of_session(grant))
            .collect();
        let confirmed = confirm(session, &own).await;
        for (grant, answer) in grants.iter().zip(&mut answers) {
            if of_session(grant) {
                *answer = match loss(grant) {
                    Some(loss) => Err(loss),
                    None => confirmed.clone(),
                };
            }
        }
    }
    answers
}

/// The moment from which all of the session's grants are valid that are not known to be lost.
async fn confirm(session: &Session, grants: &[&Grant]) -> Answer {
    if let Some(at) = session.just_confirmed() {
        return Ok(at);
    }
    for held in grants.iter().filter_map(|grant| held(grant)) {
        if held.loss().is_some() {
            continue;
        }
        let asked_at = Timestamp::now();
        match session.confirm(&held.path()).await {
            Ok(true) => return Ok(asked_at),
            // That one is lost, which says nothing about the others.
            Ok(false) => held.was_removed(),
            Err(error) => {
                return Err(match session.note(&error) {
                    Fault::Ended => lost(ENDED),
                    _ => lock_error(error),
                });
            }
        }
    }
    Err(lost(REMOVED))
}

pub(super) fn held(grant: &Grant) -> Option<&Arc<Held>> {
    grant.state()
}

fn loss(grant: &Grant) -> Option<LockError> {
    held(grant).and_then(|held| held.loss())
}
