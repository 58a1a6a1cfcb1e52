//! A reader that becomes the writer.

use std::sync::Arc;
use std::time::Duration;

use super::acquisition::{Acquisition, Upgrading};
use super::connection_manager::ConnectionManager;
use super::modes::Claim;
use super::numbers::milliseconds;
use super::script::UPGRADE_WITHDRAW;
use super::waiting::Waiting;
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant};
use crate::providers::kit::backoff::Pauses;
use crate::providers::kit::cleanup::{Attempt, repeat};
use crate::providers::kit::fault::Fault;
use crate::{LockError, LockErrorKind};

/// The pauses between one try to take an upgrade back and the next, doubled from one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Makes the writer of the reader that has this grant.
///
/// If it fails, it returns only when the reader is known to be what it was, or must have ended: the
/// server may have done what it did not answer.
pub(super) async fn upgrade(
    manager: &Arc<ConnectionManager>,
    grant: &Grant,
    request: &AcquireRequest,
) -> Result<Grant, LockError> {
    let began = Timestamp::now();
    let reader = Claim::of(&manager.naming, grant);
    // The clock never goes back, and one upgrade of a reader is over before the next one begins.
    let number = (began.as_nanos() / 1_000).to_string();
    let acquisition = Acquisition::new(manager, request, None).upgrading(Upgrading {
        owner: reader.owner.clone(),
        number: number.clone(),
    });
    let answer = Waiting::new(acquisition, began).run(None).await;
    let leaves_nothing = |error: &LockError| match error.kind() {
        LockErrorKind::Lost => true,
        LockErrorKind::Contended => !request.waits(),
        _ => false,
    };
    match answer {
        Err(error) if !leaves_nothing(&error) => {
            withdraw(manager, grant, request, &reader, &number).await;
            Err(error)
        }
        answer => answer,
    }
}

/// Takes an upgrade back, and tries until the server has answered. After a lease it need not: what
/// was put there has ended by then.
async fn withdraw(
    manager: &Arc<ConnectionManager>,
    grant: &Grant,
    request: &AcquireRequest,
    reader: &Claim,
    number: &str,
) {
    let until = Timestamp::now() + request.lease();
    let keys = manager.naming.keys(grant.name(), grant.mode().kind());
    let keys = manager.naming.of_script(&keys);
    let writer = manager.naming.owner(request.owner());
    let lease = milliseconds(grant.lease());
    let attempt = || async {
        let Ok(connection) = manager.connection().await else {
            return Attempt::Failed;
        };
        // A reader that is lost is being released, and must not come back.
        let is_lost = grant.loss_reporter().signal().get().is_some();
        let lease = if is_lost { "" } else { lease.as_str() };
        let args = [writer.as_str(), &reader.owner, number, lease];
        let asked = connection.run_by_text(&UPGRADE_WITHDRAW, keys.as_slice(), &args);
        match asked.await {
            // Its successor may have the mark still.
            Ok(_) if manager.has_left(&connection) => Attempt::Failed,
            Ok(_) => Attempt::Done,
            Err(error) => match manager.note(&connection, &error) {
                // What is refused is refused the same next time.
                Fault::Refused => Attempt::Done,
                _ => Attempt::Failed,
            },
        }
    };
    repeat(Pauses::new(FIRST_PAUSE, LONGEST_PAUSE), until, attempt).await;
}
