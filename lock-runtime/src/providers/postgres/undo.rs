//! Taking back what a request may have done whose outcome is not known.

use std::sync::Arc;
use std::time::Duration;

use super::reservation::Reservation;
use super::session::Session;
use crate::LockError;

/// Somebody may cancel these requests too, by hand.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Takes it back without keeping anybody waiting. Requests of a session are carried out in order, so
/// this one comes after the one in doubt; and if the session ends, all is undone. Until then the key
/// stays reserved, and is in doubt.
pub(super) fn undo(session: &Arc<Session>, reservation: Reservation, why: &LockError) {
    reservation.doubt(why);
    let session = Arc::clone(session);
    tokio::spawn(async move {
        for _ in 0..ATTEMPTS {
            if unlock(&session, &reservation).await {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        session.life.end("a lock could not be taken back");
    });
}

/// Until the session does not hold it: a release in doubt and a lock in doubt after it may have made
/// it hold it twice. True if there is nothing left to do.
async fn unlock(session: &Session, reservation: &Reservation) -> bool {
    loop {
        match session.unlock(reservation.keys).await {
            Ok(true) => {}
            Ok(false) => return true,
            Err(_) => return session.life.has_ended(),
        }
    }
}
