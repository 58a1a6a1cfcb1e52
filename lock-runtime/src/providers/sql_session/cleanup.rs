//! Releasing what a request may have taken whose outcome is not known.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::pool::Pool;
use super::reservation::Reservation;
use super::session::Session;
use super::traits::{Access, BackendOf, LockSession, PermitKeys};
use crate::LockError;
use crate::background;
use crate::future::select;

/// Somebody may cancel these requests too, by hand.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// What a session may have, and this process does not want.
enum Unconfirmed<S: LockSession> {
    /// It may have it in another way than the reservation says.
    Lock(Reservation<S::Key>, Access),
    Permits {
        keys: PermitKeys<S::Key>,
        permits: Vec<S::Key>,
        /// Of the semaphore, and of those permits that were held.
        _reserved: (Reservation<S::Key>, Vec<Reservation<S::Key>>),
    },
}

/// Releases the lock without keeping anybody waiting. Requests of a session are carried out in
/// order, so this one comes after the unconfirmed one; and if the session ends, all its locks are
/// released. Where the session does not answer, another one settles it. Until then the key stays
/// reserved, and unconfirmed.
pub(super) fn release_unconfirmed<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
    reservation: Reservation<S::Key>,
    why: &LockError,
) {
    let access = reservation.access;
    release_unconfirmed_change(pool, session, reservation, access, why);
}

/// Does the same for a lock that may be held by now in the other way that it was wanted.
pub(super) fn release_unconfirmed_change<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
    reservation: Reservation<S::Key>,
    wanted: Access,
    why: &LockError,
) {
    reservation.mark_unconfirmed(why);
    settle(pool, session, Unconfirmed::Lock(reservation, wanted));
}

/// Does the same for permits, none of which anybody else may have from this session. `asking` is
/// unconfirmed; so is the whole semaphore until this is settled.
pub(super) fn release_unconfirmed_permits<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
    asking: Reservation<S::Key>,
    keys: PermitKeys<S::Key>,
    permits: Vec<S::Key>,
    held: Vec<Reservation<S::Key>>,
) {
    let unconfirmed = Unconfirmed::Permits {
        keys,
        permits,
        _reserved: (asking, held),
    };
    settle(pool, session, unconfirmed);
}

fn settle<S: LockSession>(
    pool: &Arc<Pool<S>>,
    session: &Arc<Session<S>>,
    unconfirmed: Unconfirmed<S>,
) {
    let (pool, session) = (Arc::downgrade(pool), Arc::clone(session));
    background::spawn_beside(async move {
        // The left one is asked first, so that its request is on its way whatever the other finds.
        let released = unlock_again(&session, &unconfirmed);
        select(released, settle_from_another(&pool, &session, &unconfirmed)).await;
    });
}

async fn unlock_again<S: LockSession>(session: &Session<S>, unconfirmed: &Unconfirmed<S>) {
    for _ in 0..ATTEMPTS {
        if unconfirmed.unlock(session).await {
            return;
        }
        if session.has_ended() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    session.end("a lock could not be taken back");
    // Another session finds out when the server knows of its end.
    std::future::pending().await
}

/// Has another session say what became of the request. Resolves when the server does not have the
/// lock for this session: a request that comes later does no harm, since the one that releases it
/// follows.
async fn settle_from_another<S: LockSession>(
    pool: &Weak<Pool<S>>,
    session: &Session<S>,
    unconfirmed: &Unconfirmed<S>,
) {
    let pause = match pool.upgrade() {
        // An answer that is only late comes in this time.
        Some(pool) => pool.settings.patience(session.lease()) / 2,
        None => return,
    };
    select(tokio::time::sleep(pause), session.liveness().ended()).await;
    while let Some(pool) = pool.upgrade() {
        if session.is_dispensable() {
            // Nobody loses anything by it; its heartbeat sees to it that the server ends it too.
            session.end("a request was not answered");
        }
        if session.has_ended() {
            if !pool.roster.may_exist(session.backend) {
                return;
            }
        } else if let Ok(other) = pool.shared(pool.settings.lease).await {
            if !other.knows(session.backend) {
                return;
            }
            let patience = pool.settings.patience(pool.settings.lease);
            let held = unconfirmed.may_be_held_by(&other, session.backend);
            if let Ok(false) = other.within(patience, held).await {
                return;
            }
        }
        drop(pool);
        tokio::time::sleep(PAUSE).await;
    }
}

impl<S: LockSession> Unconfirmed<S> {
    /// Releases it until the session does not have it: an unconfirmed release and an unconfirmed
    /// lock after it may have made it hold a lock twice. True if there is nothing left to do.
    async fn unlock(&self, session: &Session<S>) -> bool {
        loop {
            match self.unlock_once(session).await {
                Ok(true) => {}
                Ok(false) => return true,
                // What it took ends with it, as soon as the server knows.
                Err(_) if session.has_ended() => return session.liveness().ended().await,
                Err(_) => return false,
            }
        }
    }

    /// Says whether there was something to release.
    async fn unlock_once(&self, session: &Session<S>) -> Result<bool, S::Error> {
        match self {
            Self::Lock(lock, wanted) => {
                let released = session.unlock(lock.key, lock.access).await?;
                if *wanted == lock.access {
                    return Ok(released);
                }
                Ok(session.unlock(lock.key, *wanted).await? || released)
            }
            Self::Permits { keys, permits, .. } => {
                let released = session.unlock_permits(*keys, permits).await?;
                Ok(released > 0)
            }
        }
    }

    /// Says whether a session may have it, as another one sees it.
    async fn may_be_held_by(
        &self,
        seen_by: &Session<S>,
        backend: BackendOf<S>,
    ) -> Result<bool, S::Error> {
        match self {
            Self::Lock(lock, _) => seen_by.client.may_be_held_by(lock.key, backend).await,
            Self::Permits { permits, .. } => {
                seen_by.client.may_have_permits(permits, backend).await
            }
        }
    }
}
