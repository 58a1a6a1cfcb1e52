//! Acquiring: a try, which is all there is to a lock that is free.

use std::sync::Arc;

use super::acquire_reply::Answer;
use super::acquisition::Acquisition;
use super::connection_manager::ConnectionManager;
use super::waiting::Waiting;
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant};

/// Acquires the lock. The owner `gives_up`, if there is one, gives it up in the same step.
pub(super) async fn acquire(
    manager: &Arc<ConnectionManager>,
    request: &AcquireRequest,
    gives_up: Option<String>,
) -> Result<Grant, LockError> {
    let acquisition = Acquisition::new(manager, request, gives_up);
    // Nearly always one request is all there is, so what it needs is kept small.
    let current = manager.current();
    let granting = current.filter(|connection| connection.grants_after().is_none());
    let Some(connection) = granting else {
        return Box::pin(Waiting::new(acquisition, Timestamp::now()).run(None)).await;
    };
    let asked = acquisition.ask(connection, None).await;
    match asked.answer {
        Ok(Answer::Granted(first, count)) if first > manager.settings.tokens.none_up_to => {
            Ok(acquisition.grant(asked.sent_at, first, count, None))
        }
        Ok(Answer::Held(holder)) if holder.residue().is_none() => {
            Err(holder.refusal(&acquisition.keys.lock))
        }
        _ => Box::pin(Waiting::new(acquisition, asked.sent_at).run(Some(asked))).await,
    }
}
