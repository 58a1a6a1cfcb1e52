//! Releasing a lock.

use std::sync::Arc;

use super::cleanup::{release_unconfirmed, release_unconfirmed_permits};
use super::held::{Has, HeldLock, NOT_HELD, lost};
use super::pool::Pool;
use super::reservation::Reservation;
use super::session::Session;
use super::traits::{Access, LockSession, PermitKeys};
use crate::LockError;
use crate::future::join;
use crate::provider::Grant;

/// Releases the lock of a grant. If the server's answer is not known, it is released again in the
/// background.
pub(super) async fn release<S: LockSession>(
    pool: &Arc<Pool<S>>,
    grant: &Grant,
) -> Result<(), LockError> {
    let Some((held, has)) = grant
        .state::<HeldLock<S>>()
        .and_then(|held| Some((held, held.take()?)))
    else {
        return Err(lost(NOT_HELD));
    };
    release_what(pool, &held.session, has).await
}

/// Does the same for what was taken out of a grant.
pub(super) async fn release_what<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
    has: Has<S>,
) -> Result<(), LockError> {
    if let Some(why) = session.liveness().why_ended() {
        return Err(lost(why));
    }
    let released = match has {
        Has::Lock(reservation) => release_lock(pool, session, reservation).await?,
        Has::Permits(keys, permits) => release_permits(pool, session, keys, permits).await?,
        Has::Upgradeable {
            shared,
            right,
            is_alone,
        } => {
            // Boxed, since every release would make room for it.
            let releasing = release_upgradeable(pool, session, &shared, &right, is_alone);
            Box::pin(releasing).await?
        }
    };
    match released {
        true => {
            pool.return_session(session);
            Ok(())
        }
        false => {
            session.end(NOT_HELD);
            Err(lost(NOT_HELD))
        }
    }
}

/// Releases one lock; false if the session did not hold it.
async fn release_lock<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
    reservation: Reservation<S::Key>,
) -> Result<bool, LockError> {
    session.liveness().remove_lock(&reservation.key);
    let patience = pool.settings.patience(session.lease());
    let unlocking = session.unlock(reservation.key, reservation.access);
    let answer = session.within(patience, unlocking).await;
    if let Err(error) = &answer {
        // If the session has ended, that has released the lock too.
        release_unconfirmed(pool, session, reservation, error);
    }
    answer
}

/// Releases a lock that is shared with the right to hold it alone; false if the session did not
/// hold it. Without an answer its session is ended, which has nothing else.
async fn release_upgradeable<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
    shared: &Reservation<S::Key>,
    right: &Reservation<S::Key>,
    is_alone: bool,
) -> Result<bool, LockError> {
    session.liveness().remove_lock(&shared.key);
    let patience = pool.settings.patience(session.lease());
    let unlocking = async {
        // Whoever waits is told by the last one of the two.
        let unlocking = session.unlock(shared.key, Access::Shared);
        let alone = async {
            match is_alone {
                true => session.unlock(shared.key, Access::Exclusive).await,
                false => Ok(true),
            }
        };
        let next = join(alone, session.unlock(right.key, Access::Exclusive));
        let (was_shared, (was_alone, had_right)) = join(unlocking, next).await;
        Ok(was_shared? && was_alone? && had_right?)
    };
    let answer = session.within(patience, unlocking).await;
    if answer.is_err() {
        session.end("a lock could not be given back");
    }
    answer
}

/// Releases permits; false if the session did not hold all of them.
pub(super) async fn release_permits<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
    keys: PermitKeys<S::Key>,
    permits: Vec<Reservation<S::Key>>,
) -> Result<bool, LockError> {
    let all: Vec<_> = permits.iter().map(|permit| permit.key).collect();
    for permit in &all {
        session.liveness().remove_lock(permit);
    }
    let patience = pool.settings.patience(session.lease());
    let unlocking = session.unlock_permits(keys, &all);
    let answer = session.within(patience, unlocking).await;
    match answer {
        Ok(released) => {
            // Before anybody of this process looks again.
            drop(permits);
            pool.tell_waiter_of(session, &keys);
            Ok(released == all.len())
        }
        Err(error) => {
            let asking = pool.reservations.doubt(keys.asking, &error);
            release_unconfirmed_permits(pool, session, asking, keys, all, permits);
            Err(error)
        }
    }
}
