//! Releasing a lock.

use std::sync::Arc;

use super::cleanup::release_unconfirmed;
use super::held::{HeldLock, NOT_HELD, lost};
use super::pool::Pool;
use super::traits::LockSession;
use crate::LockError;
use crate::provider::Grant;

/// Releases the lock of a grant. If the server's answer is not known, it is released again in the
/// background.
pub(super) async fn release<S: LockSession>(
    pool: &Arc<Pool<S>>,
    grant: &Grant,
) -> Result<(), LockError> {
    let Some((held, reservation)) = grant
        .state::<HeldLock<S>>()
        .and_then(|held| Some((held, held.take_reservation()?)))
    else {
        return Err(lost(NOT_HELD));
    };
    let session = &held.session;
    if let Some(why) = session.liveness().why_ended() {
        return Err(lost(why));
    }
    session.liveness().remove_lock(&reservation.key);
    let patience = pool.settings.patience(grant.lease());
    let unlocking = session.unlock(reservation.key, reservation.access);
    match session.within(patience, unlocking).await {
        Ok(true) => {
            drop(reservation);
            pool.return_session(session);
            Ok(())
        }
        Ok(false) => {
            session.end(NOT_HELD);
            Err(lost(NOT_HELD))
        }
        // If the session has ended, that has released the lock too.
        Err(error) => {
            release_unconfirmed(pool, session, reservation, &error);
            Err(error)
        }
    }
}
