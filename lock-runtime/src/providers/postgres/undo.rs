//! Taking back what a request may have done whose outcome is not known.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::pool::Pool;
use super::reservation::Reservation;
use super::session::Session;
use crate::LockError;
use crate::race::first_of;

/// Somebody may cancel these requests too, by hand.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Takes it back without keeping anybody waiting. Requests of a session are carried out in order, so
/// this one comes after the one in doubt; and if the session ends, all is undone. Where the session
/// is deaf, another one settles it. Until then the key stays reserved, and is in doubt.
pub(super) fn undo(
    pool: &Arc<Pool>,
    session: &Arc<Session>,
    reservation: Reservation,
    why: &LockError,
) {
    reservation.doubt(why);
    let (pool, session) = (Arc::downgrade(pool), Arc::clone(session));
    tokio::spawn(async move {
        // The left one is asked first, so that its request is on its way whatever the other finds.
        let undone = unlock_again(&session, &reservation);
        first_of(undone, settle_from_another(&pool, &session, &reservation)).await;
    });
}

async fn unlock_again(session: &Session, reservation: &Reservation) {
    for _ in 0..ATTEMPTS {
        if unlock(session, reservation).await {
            return;
        }
        if session.life.has_ended() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    session.life.end("a lock could not be taken back");
    // Another session finds out when the server knows of its end.
    std::future::pending().await
}

/// Has another session say what became of it. Resolves when the server does not have the lock for
/// this session: a request that comes later does no harm, since the one that takes it back follows.
async fn settle_from_another(pool: &Weak<Pool>, session: &Session, reservation: &Reservation) {
    let pause = match pool.upgrade() {
        // An answer that is only late comes in this time.
        Some(pool) => pool.settings.patience(session.lease()) / 2,
        None => return,
    };
    first_of(tokio::time::sleep(pause), session.life.ended()).await;
    while let Some(pool) = pool.upgrade() {
        if session.life.holds_nothing() {
            // Nobody loses anything by it; upkeep sees to it that the server ends it too.
            session.life.end("a request was not answered");
        }
        if session.life.has_ended() {
            if !pool.may_have(session.backend) {
                return;
            }
        } else if let Ok(other) = pool.shared(pool.settings.lease).await {
            if !other.knows(session.backend) {
                return;
            }
            let patience = pool.settings.patience(pool.settings.lease);
            let held = other.sees_held(reservation.keys, session.backend);
            if let Ok(false) = other.within(patience, held).await {
                return;
            }
        }
        drop(pool);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the session does not hold it: a release in doubt and a lock in doubt after it may have made
/// it hold it twice. True if there is nothing left to do.
async fn unlock(session: &Session, reservation: &Reservation) -> bool {
    loop {
        match session.unlock(reservation.keys).await {
            Ok(true) => {}
            Ok(false) => return true,
            // What it took ends with it, as soon as the server knows.
            Err(_) if session.life.has_ended() => return session.life.ended().await,
            Err(_) => return false,
        }
    }
}
