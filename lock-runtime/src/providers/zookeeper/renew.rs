//! Renewing: one request confirms a session, and with it all its grants.

use super::error::lock_error;
use super::held::{Held, REMOVED};
use super::session::{ENDED, Session};
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::Grant;
use crate::providers::kit::error::lost;
use crate::providers::kit::fault::Fault;
use crate::providers::kit::session::renew_by_session;

type Answer = Result<Timestamp, LockError>;

/// Confirms the sessions of the grants, and answers for each grant, in order.
pub(super) async fn renew_all(grants: &[&Grant]) -> Vec<Answer> {
    let session_of = |grant| Held::of(grant).map(|held| &held.node.session);
    let answers = renew_by_session(grants, session_of, |session, own| {
        Box::pin(confirm(session, own))
    });
    let answers = answers.await;
    let answer = |(grant, answer): (&&Grant, Option<Answer>)| match Held::of(grant)
        .and_then(|held| held.loss())
    {
        Some(loss) => Err(loss),
        None => answer.unwrap_or_else(|| Err(lost(REMOVED))),
    };
    grants.iter().zip(answers).map(answer).collect()
}

/// Returns the moment from which all of the session's grants are valid that are not known to be
/// lost.
async fn confirm(session: &Session, grants: Vec<&Grant>) -> Answer {
    if let Some(at) = session.just_confirmed() {
        return Ok(at);
    }
    for held in grants.into_iter().filter_map(Held::of) {
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
