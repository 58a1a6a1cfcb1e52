//! Waiting for a lock that somebody else has: in the server's queue, on a session of its own.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::Acquisition;
use super::error::{is_answer, unanswered};
use super::reservation::Reservation;
use super::session::Session;
use crate::provider::Grant;
use crate::providers::pause::jittered;
use crate::race::{First, first_of};
use crate::{LockError, LockErrorKind};

/// Who has no place in the server's queue looks this often, at first and later.
const FIRST_POLL: Duration = Duration::from_millis(25);
const LAST_POLL: Duration = Duration::from_millis(400);
/// A waiter that hears nothing makes sure this often that the server is there and still knows it to
/// wait.
const CHECKS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(2);
/// A session takes no longer to open, or something is wrong.
const LONG_OPENING: Duration = Duration::from_secs(1);
/// Somebody who gives up is kept waiting no longer than about this.
const WITHDRAWAL: Duration = Duration::from_millis(800);
const CANCELS_EVERY: Duration = Duration::from_millis(30);

impl Acquisition<'_> {
    pub(super) async fn wait(mut self) -> Result<Grant, LockError> {
        let key = self.pool.key(self.request.name());
        let mut poll = FIRST_POLL;
        loop {
            if self.request.is_abandoned() {
                return Err(LockErrorKind::Contended.into());
            }
            match self.pool.reserve(key) {
                Ok(reservation) => match self.session_for_it().await {
                    Ok(Some(session)) => {
                        self.request.report_trouble(None);
                        if let Some(grant) = self.wait_on(&session, reservation).await? {
                            return Ok(grant);
                        }
                    }
                    Err(_) if self.request.is_abandoned() => continue,
                    // Without a session for it, it is tried now and then. If the server is the
                    // reason, the try finds that out too, and if it only takes no more sessions, the
                    // shared ones work all the same.
                    none => {
                        if let Err(error) = none {
                            self.bears(&error);
                        }
                        if let Some(grant) = self.try_on_shared(reservation).await? {
                            return Ok(grant);
                        }
                    }
                },
                Err(Some(doubt)) if !self.bears(&doubt) => return Err(doubt),
                Err(_) => {}
            }
            let pause = tokio::time::sleep(jittered(poll));
            first_of(self.request.abandoned(), pause).await;
            poll = (poll * 2).min(LAST_POLL);
        }
    }

    /// The server has just said that somebody holds the lock, so it is no trouble yet that opening a
    /// session takes a moment.
    async fn session_for_it(&self) -> Result<Option<Arc<Session>>, LockError> {
        let opening = self.pool.for_one_lock(self.request.lease());
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
        let key = reservation.key;
        let mut granting = Box::pin(session.lock(key));
        let mut missed = false;
        let every = (self.request.lease() / 3).clamp(*CHECKS.start(), *CHECKS.end());
        let error = loop {
            let pause = tokio::time::sleep(every);
            match first_of(&mut granting, first_of(self.request.abandoned(), pause)).await {
                First::Left(Ok(())) => {
                    drop(granting);
                    return self.claim(session, reservation).await;
                }
                First::Left(Err(error)) => break session.explain(error),
                First::Right(First::Left(())) => {
                    self.withdraw(session, reservation, granting).await;
                    return Err(LockErrorKind::Contended.into());
                }
                First::Right(First::Right(())) => match self.server_sees_waiting(session).await {
                    Ok(true) => {
                        missed = false;
                        self.request.report_contention();
                    }
                    // It was granted or ended; if the word of it does not come soon, it is lost.
                    Ok(false) => {
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
        if !session.life.has_ended() {
            // Refused, or cancelled by somebody: it may have the lock all the same.
            session.life.end("a waiting request failed");
        }
        match self.bears(&error) {
            true => Ok(None),
            false => Err(error),
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
        let answer = session.within(patience, session.token()).await;
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
    /// kept open.
    async fn server_sees_waiting(&mut self, session: &Session) -> Result<bool, LockError> {
        let patience = self.pool.settings.patience(self.pool.settings.lease);
        self.request.report_unanswered(true);
        let asked = async {
            let shared = self.pool.shared(self.pool.settings.lease).await?;
            let seen = shared.sees_waiting(session.backend);
            shared.within(patience, seen).await
        };
        let answer = first_of(asked, self.request.abandoned()).await;
        self.request.report_unanswered(false);
        match answer {
            First::Left(Ok(waits)) => {
                self.recovered();
                Ok(waits)
            }
            First::Left(Err(error)) => Err(error),
            // That is seen to next.
            First::Right(()) => Ok(true),
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
            while shared.cancel(session.backend).await.ok()? {
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
