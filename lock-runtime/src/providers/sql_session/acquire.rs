//! Acquiring a lock, and passing one on.

use std::sync::Arc;

use super::acquisition::{Acquisition, WaitPlace};
use super::attempt::Found;
use super::cleanup::release_unconfirmed_change;
use super::held::NOT_HELD;
use super::reservation::Reservation;
use super::session::Session;
use super::traits::{LockSession, Tried};
use crate::provider::Grant;
use crate::{LockError, LockErrorKind};

impl<S: LockSession> Acquisition<'_, S> {
    /// Tries the lock, and waits for it if somebody else has it.
    pub(super) async fn run(mut self) -> Result<Grant, LockError> {
        let key = self.key;
        let mut place = WaitPlace::Queue;
        match self.pool.reserve(key, self.access) {
            Ok(reservation) => match self.try_on_shared(reservation).await? {
                Found::Granted(grant) => return Ok(grant),
                Found::Held(beside) => place = beside,
                Found::Unconfirmed(_) | Found::Nothing => {}
            },
            // What an earlier request took is being released.
            Err(Some(unconfirmed)) if !self.tolerates(&unconfirmed) => return Err(unconfirmed),
            // Another name of the same key is held by this very provider.
            Err(_) => {}
        }
        if !self.request.waits() {
            return Err(LockErrorKind::Contended.into());
        }
        Box::pin(self.wait(place)).await
    }

    /// Goes on with a lock that this session holds: releases it and tries it again in one round trip, so that
    /// whoever waits for it on the server comes first.
    pub(super) async fn go_on_from(
        mut self,
        session: &Arc<Session<S>>,
        mut reservation: Reservation<S::Key>,
    ) -> Result<Grant, LockError> {
        session.liveness().remove_lock(&reservation.key);
        self.request.report_unanswered(true);
        let from = reservation.access;
        let relocking = session.relock(reservation.key, from, self.access);
        let answer = session.within(self.patience(), relocking).await;
        self.request.report_unanswered(false);
        match answer {
            Ok((true, Tried::Granted(granted))) => {
                reservation.change_access(self.access);
                match self.granted(session, reservation, granted) {
                    Err(error) if self.tolerates(&error) => {
                        Box::pin(self.wait(WaitPlace::Queue)).await
                    }
                    granted => granted,
                }
            }
            Ok((true, refused)) => {
                // The next one in the server's queue has it, or one who was told.
                self.request.report_contention();
                let key = reservation.key;
                drop(reservation);
                let others = match refused {
                    Tried::Held { others_wait: false } => None,
                    _ => Some(WaitPlace::NoticeAfterOthers),
                };
                let place = self.wait_place(session, key, others).await;
                self.pool.return_session(session);
                match self.request.waits() {
                    true => Box::pin(self.wait(place)).await,
                    false => Err(LockErrorKind::Contended.into()),
                }
            }
            Ok((false, _)) => {
                // The old grant was over already. What else the session knows is worth nothing.
                session.end(NOT_HELD);
                drop(reservation);
                Box::pin(self.run()).await
            }
            Err(error) if session.has_ended() => {
                drop(reservation);
                tracing::debug!(%error, "the session of a lock that was passed on has ended");
                Box::pin(self.run()).await
            }
            Err(error) => {
                self.pool.note_error(&error);
                let wanted = self.access;
                release_unconfirmed_change(self.pool, session, reservation, wanted, &error);
                match self.tolerates(&error) {
                    true => Box::pin(self.wait(WaitPlace::Queue)).await,
                    false => Err(error),
                }
            }
        }
    }
}
