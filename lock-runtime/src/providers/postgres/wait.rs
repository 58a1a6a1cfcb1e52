//! Waiting for a lock that somebody else has: in the server's queue, on a session of its own, or for
//! a notice of its release.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::Acquisition;
use super::error::{ends_a_wait, is_answer, unanswered};
use super::key::Keys;
use super::reservation::Reservation;
use super::session::{Seen, Session};
use crate::clock::Timestamp;
use crate::provider::Grant;
use crate::providers::pause::jittered;
use crate::race::{First, first_of};
use crate::{LockError, LockErrorKind};

/// Who waits for a notice looks this often besides, at first and later: not everybody who releases
/// a lock sends one.
pub(super) const FIRST_POLL: Duration = Duration::from_millis(25);
pub(super) const LAST_POLL: Duration = Duration::from_millis(400);
/// A wait that lasted this long did not fail at once.
const LONG_WAIT: Duration = Duration::from_secs(1);
/// A waiter that hears nothing makes sure this often that the server is there and still knows it to
/// wait.
const CHECKS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_millis(1_500);
/// A session takes no longer to open, or something is wrong.
const LONG_OPENING: Duration = Duration::from_secs(1);
/// Somebody who gives up is kept waiting no longer than about this.
const WITHDRAWAL: Duration = Duration::from_millis(800);
const CANCELS_EVERY: Duration = Duration::from_millis(30);

/// Where to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the server's queue.
    Queue,
    /// For a notice, since others do: whoever stands in the queue would always come before them.
    Notice,
    /// The same, and they were just sent one: they try first.
    AfterOthers,
}

impl Acquisition<'_> {
    pub(super) async fn wait(mut self, mut place: Place) -> Result<Grant, LockError> {
        let keys = self.pool.keys(self.request.name());
        let mut poll = FIRST_POLL;
        loop {
            if self.request.is_abandoned() {
                return Err(LockErrorKind::Contended.into());
            }
            let began = Timestamp::now();
            let waited = match place {
                Place::Queue => self.wait_in_queue(keys).await,
                Place::Notice => self.wait_for_notice(keys, false).await,
                Place::AfterOthers => self.wait_for_notice(keys, true).await,
            };
            if let Some(grant) = waited? {
                return Ok(grant);
            }
            place = Place::Queue;
            poll = match (began + LONG_WAIT).has_passed() {
                true => FIRST_POLL,
                false => (poll * 2).min(LAST_POLL),
            };
            let pause = tokio::time::sleep(jittered(poll));
            first_of(self.request.abandoned(), pause).await;
        }
    }

    /// In the server's queue if there is a place, else for a notice. `None` if that came to nothing.
    async fn wait_in_queue(&mut self, keys: Keys) -> Result<Option<Grant>, LockError> {
        let reservation = match self.pool.reserve(keys) {
            Ok(reservation) => reservation,
            Err(Some(doubt)) if !self.bears(&doubt) => return Err(doubt),
            Err(_) => return Ok(None),
        };
        let Some(place) = self.pool.place() else {
            drop(reservation);
            return self.wait_for_notice(keys, false).await;
        };
        let session = match self.session_for_it().await {
            Ok(Some(session)) => session,
            Err(_) if self.request.is_abandoned() => return Ok(None),
            // If the server is the reason, the wait for a notice finds that out too; and if it only
            // takes no more sessions, the shared ones work all the same.
            none => {
                drop((reservation, place));
                if let Err(error) = none {
                    self.bears(&error);
                }
                return self.wait_for_notice(keys, false).await;
            }
        };
        // The server has just let it in, or was well not long ago.
        self.recovered();
        self.request.report_trouble(None);
        let waited = self.wait_on(&session, reservation).await;
        // Who holds a lock needs no place in a queue.
        drop(place);
        waited
    }

    /// The server has just said that somebody holds the lock, so it is no trouble yet that opening a
    /// session takes a moment.
    async fn session_for_it(&self) -> Result<Option<Arc<Session>>, LockError> {
        let opening = self.pool.for_one_lock();
        let long = async {
            tokio::time::sleep(LONG_OPENING).await;
            self.request.report_unanswered(true);
            self.request.abandoned().await;
        };
        let opened = first_of(opening, first_of(self.request.abandoned(), long)).await;
        self.request.report_unanswered(false);
        match opened {
            First::Left(opened) => opened,
            First::Right(_) => Err(LockErrorKind::Contended.into()),
        }
    }

    /// Waits in the server's queue. `None` if that came to nothing, and it may wait on another
    /// session.
    async fn wait_on(
        &mut self,
        session: &Arc<Session>,
        reservation: Reservation,
    ) -> Result<Option<Grant>, LockError> {
        let idle = self.pool.settings.claim_within(self.request.lease());
        let mut granting = Box::pin(session.lock(reservation.keys, idle));
        let mut missed = false;
        let every = (self.request.lease() / 3).clamp(*CHECKS.start(), *CHECKS.end());
        let error = loop {
            let pause = tokio::time::sleep(every);
            match first_of(&mut granting, first_of(self.request.abandoned(), pause)).await {
                First::Left(Ok(())) => {
                    drop(granting);
                    return self.claim(session, reservation).await;
                }
                First::Left(Err(error)) if ends_a_wait(&error) => {
                    drop(granting);
                    return self.leave_queue(session, reservation).await;
                }
                First::Left(Err(error)) => break session.explain(error),
                First::Right(First::Left(())) => {
                    self.withdraw(session, reservation, granting).await;
                    return Err(LockErrorKind::Contended.into());
                }
                First::Right(First::Right(())) => match self.look_at(session).await {
                    Ok(Seen { waits: true, .. }) => {
                        missed = false;
                        self.request.report_contention();
                    }
                    // It was granted or ended; if the word of it does not come soon, it is lost.
                    Ok(_) => {
                        if std::mem::replace(&mut missed, true) {
                            session.life.end("the answer to a waiting request was lost");
                        }
                    }
                    // Its own connection works, or it would have ended; and nobody can ask now.
                    Err(error) if is_answer(&error) => self.recovered(),
                    Err(error) => {
                        if !self.bears(&error) {
                            session.life.end("the server was out of reach for too long");
                            return Err(error);
                        }
                    }
                },
            }
        };
        drop(granting);
        self.pool.note(&error);
        if !session.life.has_ended() {
            // Refused; it may have the lock all the same.
            session.life.end("a waiting request failed");
        }
        match self.bears(&error) {
            true => Ok(None),
            false => Err(error),
        }
    }

    /// The wait was ended, by its bound or since somebody waited for the end of its snapshot. The lock
    /// may have been granted just then. `None`, if that is given back.
    async fn leave_queue(
        &mut self,
        session: &Arc<Session>,
        reservation: Reservation,
    ) -> Result<Option<Grant>, LockError> {
        let patience = self.pool.settings.patience(self.request.lease());
        let left = session.within(patience, session.unlock_all_after_cancel());
        match left.await {
            Ok(()) => {
                drop(reservation);
                self.recovered();
                self.pool.give_back(session);
                Ok(None)
            }
            Err(error) => {
                session
                    .life
                    .end("a waiting request could not be taken back");
                match self.bears(&error) {
                    true => Ok(None),
                    false => Err(error),
                }
            }
        }
    }

    /// The lock was granted, at some time that is not known: the lease counts from the request for
    /// the token.
    async fn claim(
        &mut self,
        session: &Arc<Session>,
        reservation: Reservation,
    ) -> Result<Option<Grant>, LockError> {
        let patience = self.pool.settings.patience(self.request.lease());
        self.request.report_unanswered(true);
        let answer = session
            .within(patience, session.token(self.request.lease()))
            .await;
        self.request.report_unanswered(false);
        match answer.and_then(|granted| self.granted(session, reservation, granted)) {
            Ok(grant) => Ok(Some(grant)),
            Err(error) => {
                // It holds this one lock alone, so its end undoes it.
                session.life.end("the lock's token was not to be had");
                match self.bears(&error) {
                    true => Ok(None),
                    false => Err(error),
                }
            }
        }
    }

    /// Asks on another session, since this one cannot answer while it waits: one of those that are
    /// kept open. Ends the wait if somebody waits for the end of its snapshot.
    async fn look_at(&mut self, session: &Session) -> Result<Seen, LockError> {
        let patience = self.pool.settings.patience(self.pool.settings.lease);
        self.request.report_unanswered(true);
        let asked = async {
            let shared = self.pool.shared(self.pool.settings.lease).await?;
            if !shared.knows(session.backend) {
                return Err(LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail("the sessions of this process are on two servers"));
            }
            let seen = shared.look_at(session.backend);
            let seen = shared.within(patience, seen).await?;
            if seen.waits && seen.is_in_the_way {
                let cancel = shared.cancel(session.backend);
                shared.within(patience, cancel).await?;
            }
            Ok(seen)
        };
        let answer = first_of(asked, self.request.abandoned()).await;
        self.request.report_unanswered(false);
        match answer {
            First::Left(Ok(seen)) => {
                self.recovered();
                Ok(seen)
            }
            First::Left(Err(error)) => Err(error),
            // That is seen to next.
            First::Right(()) => Ok(Seen {
                waits: true,
                is_in_the_way: false,
            }),
        }
    }

    /// Nobody wants the lock any more: takes the request out of the server's queue.
    async fn withdraw(
        &self,
        session: &Arc<Session>,
        reservation: Reservation,
        mut granting: impl Future<Output = Result<(), tokio_postgres::Error>> + Unpin,
    ) {
        let cancelling = async {
            let shared = self.pool.shared(self.pool.settings.lease).await.ok()?;
            // One that comes before the request that it is to cancel has no effect.
            while shared.knows(session.backend) && shared.cancel(session.backend).await.ok()? {
                let pause = tokio::time::sleep(CANCELS_EVERY);
                if let First::Left(_) = first_of(&mut granting, pause).await {
                    // It may have come just after the grant; even the statement that took the lock
                    // may fail then, and keeps it.
                    return session.unlock_all_after_cancel().await.ok();
                }
            }
            None
        };
        let clean = tokio::time::timeout(WITHDRAWAL, cancelling).await == Ok(Some(()));
        if clean {
            drop(reservation);
            self.pool.give_back(session);
        } else {
            session
                .life
                .end("the waiting request could not be cancelled");
            // Whoever has just given up learns that nobody can tell who holds the lock.
            self.request.report_trouble(Some(unanswered(WITHDRAWAL)));
        }
    }
}
