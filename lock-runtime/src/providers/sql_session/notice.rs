//! Waiting for a notice of a lock's release, on a session that is shared.
//!
//! Whoever releases a lock sees those who wait so in the same round trip, and has the server tell
//! them. The notice comes when the lock is free, so whoever is quickest has it.

use std::sync::Arc;

use super::acquisition::{Acquisition, FIRST_POLL, LAST_POLL};
use super::attempt::Found;
use super::session::Session;
use super::traits::{Access, LockSession, Notices};
use crate::background;
use crate::future::{First, select};
use crate::provider::Grant;
use crate::providers::kit::backoff::jittered;
use crate::{LockError, LockErrorKind};

/// A waiter for notices, until this is dropped.
struct Registration<S: LockSession> {
    session: Arc<Session<S>>,
    key: S::Key,
    access: Access,
    notices: Arc<Notices>,
    /// Whoever releases the lock sees it.
    is_registered: bool,
}

impl<S: LockSession> Registration<S> {
    fn new(session: &Arc<Session<S>>, key: S::Key, access: Access) -> Self {
        session.add_listener();
        Self {
            session: Arc::clone(session),
            key,
            access,
            notices: session.client.subscribe(key),
            is_registered: false,
        }
    }
}

impl<S: LockSession> Drop for Registration<S> {
    fn drop(&mut self) {
        let (session, is_registered) = (Arc::clone(&self.session), self.is_registered);
        let (key, access) = (self.key, self.access);
        let notices = Arc::clone(&self.notices);
        background::spawn_beside(async move {
            session.remove_listener();
            if session.has_ended() {
                return;
            }
            let leaving = session
                .client
                .unregister_waiter(key, access, &notices, is_registered);
            if leaving.await.is_err() {
                // It would be seen to wait for as long as its session lives.
                session.end("a wait for notices could not be ended");
            }
        });
    }
}

impl<S: LockSession> Acquisition<'_, S> {
    /// Waits for notices, and tries the lock at each. `after_others` says that those who wait were
    /// just sent one, and come first. `None` if that came to nothing.
    pub(super) async fn wait_for_notice(
        &mut self,
        key: S::Key,
        after_others: bool,
    ) -> Result<Option<Grant>, LockError> {
        // A session that has the lock would not be refused it, and would not see itself wait.
        let avoided = self.pool.reservations.sessions_of(&key);
        let opening = self.pool.shared_but(self.request.lease(), &avoided);
        let opening = select(opening, self.request.abandoned());
        let session = match opening.await {
            First::Left(Ok(Some(session))) => session,
            First::Left(Ok(None)) => return Ok(None),
            First::Left(Err(error)) if self.tolerates(&error) => return Ok(None),
            First::Left(Err(error)) => return Err(error),
            First::Right(()) => return Ok(None),
        };
        let patience = self.patience();
        let mut registration = Registration::new(&session, key, self.access);
        let (mut poll, mut waits_first) = (FIRST_POLL, after_others);
        while session.is_usable() {
            if !registration.is_registered {
                let registering = session.client.register_waiter(key, self.access);
                match session.within(patience, registering).await {
                    Ok(is_registered) => registration.is_registered = is_registered,
                    Err(error) => {
                        // Nobody knows whether it is seen, so that is taken back.
                        registration.is_registered = true;
                        self.pool.note_error(&error);
                        return match self.tolerates(&error) {
                            true => Ok(None),
                            false => Err(error),
                        };
                    }
                }
            }
            if self.request.is_abandoned() {
                return Err(LockErrorKind::Contended.into());
            }
            let after_exclusive = registration.notices.take_after_exclusive();
            if !std::mem::take(&mut waits_first) {
                match self.pool.reserve(key, self.access) {
                    Ok(reservation) if reservation.bind(session.number()) => {
                        self.request.report_unanswered(true);
                        let past_notices = after_exclusive && self.access == Access::Shared;
                        let found = self.try_on(&session, reservation, past_notices).await;
                        self.request.report_unanswered(false);
                        match found {
                            Ok(Found::Granted(grant)) => return Ok(Some(grant)),
                            Ok(_) => {}
                            Err((error, Some(_))) if self.tolerates(&error) => return Ok(None),
                            Err((error, _)) => return Err(error),
                        }
                    }
                    Err(Some(unconfirmed)) if !self.tolerates(&unconfirmed) => {
                        return Err(unconfirmed);
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            let pause = tokio::time::sleep(jittered(poll));
            let over = select(self.request.abandoned(), session.liveness().ended());
            match select(registration.notices.arrived(), select(over, pause)).await {
                First::Left(()) => poll = FIRST_POLL,
                First::Right(_) => poll = (poll * 2).min(LAST_POLL),
            }
        }
        Ok(None)
    }
}
