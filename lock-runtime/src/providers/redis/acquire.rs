//! Acquiring: a try, which is all there is to a lock that is free.

use std::sync::Arc;

use super::acquisition::{Acquisition, settle};
use super::connection_manager::ConnectionManager;
use super::modes::{Claim, check};
use super::waiting::Waiting;
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant};

/// Acquires the lock. The owner `gives_up`, if there is one, gives it up in the same step.
pub(super) async fn acquire(
    manager: &Arc<ConnectionManager>,
    request: &AcquireRequest,
    gives_up: Option<Claim>,
) -> Result<Grant, LockError> {
    let acquisition = Acquisition::new(manager, request, gives_up);
    if let Err(error) = check(request.mode()) {
        acquisition.release_given_up();
        return Err(error);
    }
    // Nearly always one request is all there is, so what it needs is kept small.
    let current = manager.current();
    let granting = current.filter(|connection| connection.grants_after().is_none());
    let Some(connection) = granting else {
        return Box::pin(Waiting::new(acquisition, Timestamp::now()).run(None)).await;
    };
    let asked = acquisition.ask(connection, None).await;
    match settle(manager, request, asked) {
        Ok(outcome) => outcome,
        Err(asked) => Box::pin(Waiting::new(acquisition, asked.sent_at).run(Some(asked))).await,
    }
}
