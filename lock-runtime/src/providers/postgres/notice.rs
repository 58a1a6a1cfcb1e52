//! Waiting for a notice of a lock's release, on a session that is shared.
//!
//! Who waits so is seen by whoever releases the lock, in the same round trip, by a second lock beside
//! it that all who wait hold in shared mode; and is told by a notice on a channel of that lock's.
//! The notice comes when the lock is free, so whoever is quickest has it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::acquire::{Acquisition, Found};
use super::key::Keys;
use super::session::Session;
use super::wait::{FIRST_POLL, LAST_POLL, Place};
use crate::provider::Grant;
use crate::providers::pause::jittered;
use crate::race::{First, first_of};
use crate::{LockError, LockErrorKind};

/// Seen to wait for notices; no more when dropped.
struct Enrolled {
    session: Arc<Session>,
    keys: Keys,
    notices: Arc<Notify>,
    /// Whoever releases the lock sees it.
    is_seen: bool,
}

impl Enrolled {
    fn new(session: &Arc<Session>, keys: Keys) -> Self {
        Self {
            session: Arc::clone(session),
            keys,
            notices: session.life.hear(keys.waiters),
            is_seen: false,
        }
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let (session, keys, is_seen) = (Arc::clone(&self.session), self.keys, self.is_seen);
        let notices = Arc::clone(&self.notices);
        tokio::spawn(async move {
            if !session.life.has_ended() && session.leave(keys, &notices, is_seen).await.is_err() {
                // It would be seen to wait for as long as its session lives.
                session.life.end("a wait for notices could not be ended");
            }
        });
    }
}

/// Pauses between looks whether others wait, who have to be seen at each: those who only look are
/// done sooner.
const LOOKS: [Duration; 3] = [
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(9),
];

impl Acquisition<'_> {
    /// Where to wait, if at all: `others` is the place where it seems that others wait for notices.
    pub(super) async fn place_beside(
        &self,
        session: &Session,
        keys: Keys,
        others: Option<Place>,
    ) -> Place {
        let Some(others) = others.filter(|_| self.request.waits()) else {
            return Place::Queue;
        };
        let patience = self.pool.settings.patience(self.request.lease());
        for pause in LOOKS {
            match session.within(patience, session.nobody_waits(keys)).await {
                Ok(true) => return Place::Queue,
                Ok(false) => tokio::time::sleep(jittered(pause)).await,
                Err(_) => break,
            }
        }
        others
    }

    /// Waits for notices, and tries at each: `after_others` says that those who wait were just sent
    /// one, and come first. `None` if that came to nothing.
    pub(super) async fn wait_for_notice(
        &mut self,
        keys: Keys,
        after_others: bool,
    ) -> Result<Option<Grant>, LockError> {
        let lease = self.request.lease();
        let opening = first_of(self.pool.shared(lease), self.request.abandoned());
        let session = match opening.await {
            First::Left(Ok(session)) => session,
            First::Left(Err(error)) if self.bears(&error) => return Ok(None),
            First::Left(Err(error)) => return Err(error),
            First::Right(()) => return Ok(None),
        };
        let patience = self.pool.settings.patience(lease);
        let mut enrolled = Enrolled::new(&session, keys);
        let (mut poll, mut waits_first) = (FIRST_POLL, after_others);
        while session.is_usable() {
            if !enrolled.is_seen {
                let enrolling = session.enrol(keys);
                match session.within(patience, enrolling).await {
                    Ok(is_seen) => enrolled.is_seen = is_seen,
                    Err(error) => {
                        // Whether it is seen is not known, so it is taken back.
                        enrolled.is_seen = true;
                        self.pool.note(&error);
                        return match self.bears(&error) {
                            true => Ok(None),
                            false => Err(error),
                        };
                    }
                }
            }
            if self.request.is_abandoned() {
                return Err(LockErrorKind::Contended.into());
            }
            if !std::mem::take(&mut waits_first) {
                match self.pool.reserve(keys) {
                    Ok(reservation) => {
                        self.request.report_unanswered(true);
                        let found = self.try_on(&session, reservation).await;
                        self.request.report_unanswered(false);
                        match found {
                            Ok(Found::Granted(grant)) => return Ok(Some(grant)),
                            Ok(_) => {}
                            Err((error, Some(_))) if self.bears(&error) => return Ok(None),
                            Err((error, _)) => return Err(error),
                        }
                    }
                    Err(Some(doubt)) if !self.bears(&doubt) => return Err(doubt),
                    Err(_) => {}
                }
            }
            let pause = tokio::time::sleep(jittered(poll));
            let over = first_of(self.request.abandoned(), session.life.ended());
            match first_of(enrolled.notices.notified(), first_of(over, pause)).await {
                First::Left(()) => poll = FIRST_POLL,
                First::Right(_) => poll = (poll * 2).min(LAST_POLL),
            }
        }
        Ok(None)
    }
}
