//! Trying a lock on a shared session, which is all there is to a lock that is free.

use std::sync::Arc;
use std::time::Duration;

use super::acquisition::{Acquisition, FIRST_POLL, LAST_POLL, WaitPlace};
use super::cleanup::release_unconfirmed;
use super::look::look_before;
use super::reservation::Reservation;
use super::session::Session;
use super::traits::{LockSession, Tried};
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::provider::Grant;
use crate::providers::kit::backoff::jittered;
use crate::{LockError, LockErrorKind};

/// How often a lock is tried again that this process itself is releasing.
pub(super) const CLEANUP_POLL: Duration = Duration::from_millis(10);
/// Pauses before a request is made again whose session was found dead.
pub(super) const RETRY_PAUSES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(50)];
/// Pauses between looks whether others wait. Those who wait are seen at each look; those who only
/// look are done sooner.
const LOOKS: [Duration; 3] = [
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(9),
];

/// What a try on a shared session came to.
pub(super) enum Found<S: LockSession> {
    Granted(Grant),
    /// Somebody holds the lock, and this is where to wait for it.
    Held(WaitPlace),
    /// A session that this process has given up has the lock, and it is being released.
    Unconfirmed(Reservation<S::Key>),
    /// Nothing is known; the lock is worth another look later.
    Nothing,
}

impl<S: LockSession> Acquisition<'_, S> {
    /// Tries the lock on a session that is shared.
    pub(super) async fn try_on_shared(
        &mut self,
        reservation: Reservation<S::Key>,
    ) -> Result<Found<S>, LockError> {
        self.request.report_unanswered(true);
        let answer = self.ask_on_shared(reservation).await;
        self.request.report_unanswered(false);
        answer
    }

    async fn ask_on_shared(
        &mut self,
        mut reservation: Reservation<S::Key>,
    ) -> Result<Found<S>, LockError> {
        let look = look_before(self.pool, self.request.lease());
        select(look, self.request.abandoned()).await;
        let mut pause = Duration::ZERO;
        let patience = self.patience();
        let released_by = self
            .deadline
            .end()
            .unwrap_or_else(|| Timestamp::now() + patience);
        loop {
            let opening = self.pool.shared_for(self.request.lease(), &reservation);
            let opening = self.in_time(opening);
            let session = match select(opening, self.request.abandoned()).await {
                First::Left(Ok(Some(session))) => session,
                // Every session that may be had has the lock for this process.
                First::Left(Ok(None)) => return Ok(Found::Held(WaitPlace::Queue)),
                First::Left(Err(error)) if self.tolerates(&error) => continue,
                First::Left(Err(error)) => return Err(error),
                First::Right(()) => return Err(LockErrorKind::Contended.into()),
            };
            match self.try_on(&session, reservation, false).await {
                Ok(Found::Unconfirmed(untried)) if !released_by.has_passed() => {
                    reservation = untried;
                    tokio::time::sleep(CLEANUP_POLL).await;
                    continue;
                }
                Ok(Found::Unconfirmed(_)) => {
                    let error = given_up();
                    return match self.tolerates(&error) {
                        true => Ok(Found::Nothing),
                        false => Err(error),
                    };
                }
                Ok(found) => return Ok(found),
                // What the session took died with it.
                Err((error, Some(untried))) => {
                    // A session that was idle may be found dead only now.
                    if !pause.is_zero() && !self.tolerates(&error) {
                        return Err(error);
                    }
                    reservation = untried;
                }
                Err((error, None)) => return Err(error),
            }
            select(
                tokio::time::sleep(jittered(pause)),
                self.request.abandoned(),
            )
            .await;
            pause = (pause * 2).clamp(2 * FIRST_POLL, 2 * LAST_POLL);
        }
    }

    /// Tries the lock on this session, to which the reservation is bound. A reader may try it
    /// `past_notices`. An error with the reservation is that of a session that has ended.
    pub(super) async fn try_on(
        &mut self,
        session: &Arc<Session<S>>,
        reservation: Reservation<S::Key>,
        past_notices: bool,
    ) -> Result<Found<S>, (LockError, Option<Reservation<S::Key>>)> {
        let patience = self.patience();
        let left = self.deadline.end().map_or(patience, Timestamp::remaining);
        let (key, access) = (reservation.key, reservation.access);
        let trying = async {
            match past_notices {
                true => session.client.try_lock_past_notices(key).await,
                false => session.try_lock(key, access).await,
            }
        };
        let error = match session.within(patience.min(left), trying).await {
            Ok(Tried::Granted(granted)) => {
                self.recovered();
                return match self.granted(session, reservation, granted) {
                    Ok(grant) => Ok(Found::Granted(grant)),
                    Err(error) if self.tolerates(&error) => Ok(Found::Nothing),
                    Err(error) => Err((error, None)),
                };
            }
            Ok(Tried::Held { others_wait }) => {
                self.recovered();
                if self.pool.roster.has_ended_ones()
                    && self.is_unconfirmed(session, key, None).await
                {
                    return Ok(Found::Unconfirmed(reservation));
                }
                self.request.report_contention();
                let others = others_wait.then_some(WaitPlace::Notice);
                let place = self.wait_place(session, key, others);
                return Ok(Found::Held(place.await));
            }
            Ok(Tried::BehindNotices) => {
                self.recovered();
                self.request.report_contention();
                let place = self.wait_place(session, key, Some(WaitPlace::Notice));
                return Ok(Found::Held(place.await));
            }
            Err(error) => error,
        };
        self.pool.note_error(&error);
        if session.has_ended() {
            return Err((error, Some(reservation)));
        }
        // The request was refused or not answered in time. Then it may be granted yet.
        release_unconfirmed(self.pool, session, reservation, &error);
        match self.tolerates(&error) {
            true => Ok(Found::Nothing),
            false => Err((error, None)),
        }
    }

    /// Says whether nobody has the lock but sessions that this process has given up, and the one
    /// that asks. Then nobody else was seen to hold it.
    pub(super) async fn is_unconfirmed(
        &self,
        session: &Session<S>,
        key: S::Key,
        asking: Option<S::Pid>,
    ) -> bool {
        let holders = session.client.holders(key);
        match session.within(self.patience(), holders).await {
            Ok(Some(mut pids)) => {
                pids.retain(|pid| asking != Some(*pid));
                self.pool.roster.serves_ended_ones_alone(&pids)
            }
            // The server cannot tell.
            Ok(None) => false,
            // It did not tell: nobody was seen.
            Err(_) => true,
        }
    }

    /// Decides where to wait, if at all: `others` is the place where it seems that others wait for
    /// notices.
    pub(super) async fn wait_place(
        &self,
        session: &Session<S>,
        key: S::Key,
        others: Option<WaitPlace>,
    ) -> WaitPlace {
        let Some(others) = others.filter(|_| self.request.waits()) else {
            return WaitPlace::Queue;
        };
        let patience = self.patience();
        for pause in LOOKS {
            let looking = session.client.has_no_waiters(key);
            match session.within(patience, looking).await {
                Ok(true) => return WaitPlace::Queue,
                Ok(false) => tokio::time::sleep(jittered(pause)).await,
                Err(_) => break,
            }
        }
        others
    }
}

/// Makes the error of who would wait for nobody else.
pub(super) fn given_up() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("a session that this process has given up may still have the lock")
}
