//! Waiting in the server's queue, on a session of its own.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::acquisition::Acquisition;
use super::attempt::given_up;
use super::fault::ClientError;
use super::reservation::Reservation;
use super::session::Session;
use super::traits::{Answer, LockSession, Seen};
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::provider::Grant;
use crate::providers::kit::fault::unanswered;
use crate::{LockError, LockErrorKind};

/// A waiter that hears nothing makes sure this often that the server is there and still knows it to
/// wait.
const CHECKS: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_millis(1_500);
/// A session takes no longer than this to open, or something is wrong.
const LONG_OPENING: Duration = Duration::from_secs(1);
/// Somebody who gives up is kept waiting no longer than about this.
const CANCELLATION: Duration = Duration::from_millis(800);
const CANCELS_EVERY: Duration = Duration::from_millis(30);

/// A request that must not wait is looked at after this time.
const NO_WAIT: Duration = Duration::from_millis(10);

/// How a stand in the server's queue has ended.
pub(super) enum Stood {
    Granted,
    /// By its bound, or since somebody waited for the end of its snapshot. The lock may have been
    /// granted just then.
    Ended,
    /// Nobody wants the lock any more. What was to be left was left if this is `clean`, and else
    /// the session has ended. `why` is the error of who did not want to wait.
    Abandoned {
        clean: bool,
        why: LockError,
    },
    /// The session has ended.
    Nothing,
}

/// What a session gives back whose wait is abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    Everything,
    TheLock,
}

impl<S: LockSession> Acquisition<'_, S> {
    /// Waits in the server's queue if there is a place in it, else for a notice. `None` if that
    /// came to nothing.
    pub(super) async fn wait_in_queue(&mut self, key: S::Key) -> Result<Option<Grant>, LockError> {
        let reservation = match self.pool.reserve(key, self.access) {
            Ok(reservation) => reservation,
            Err(Some(unconfirmed)) if !self.tolerates(&unconfirmed) => return Err(unconfirmed),
            Err(_) => return Ok(None),
        };
        let Some(permit) = self.pool.queue_permit() else {
            drop(reservation);
            return self.wait_for_notice(key, false).await;
        };
        let session = match self.session_for_it().await {
            Ok(Some(session)) => session,
            Err(_) if self.request.is_abandoned() => return Ok(None),
            // If the server is the reason, the wait for a notice finds that out too; and if it only
            // takes no more sessions, the shared ones work all the same.
            none => {
                drop((reservation, permit));
                if let Err(error) = none {
                    self.tolerates(&error);
                }
                return self.wait_for_notice(key, false).await;
            }
        };
        // The server has just let the session in, or was well not long ago.
        self.recovered();
        self.request.report_trouble(None);
        let waited = self.wait_on(&session, reservation).await;
        // A holder needs no place in a queue.
        drop(permit);
        waited
    }

    /// Opens a session to wait on. The server has just said that somebody holds the lock, so it is
    /// no trouble yet that this takes a moment.
    async fn session_for_it(&self) -> Result<Option<Arc<Session<S>>>, LockError> {
        let opening = self.pool.for_one_lock();
        let long = async {
            tokio::time::sleep(LONG_OPENING).await;
            self.request.report_unanswered(true);
            self.request.abandoned().await;
        };
        let opened = select(opening, select(self.request.abandoned(), long)).await;
        self.request.report_unanswered(false);
        match opened {
            First::Left(opened) => opened,
            First::Right(_) => Err(LockErrorKind::Contended.into()),
        }
    }

    /// Waits in the server's queue on this session. `None` if that came to nothing, and the request
    /// may wait on another one.
    async fn wait_on(
        &mut self,
        session: &Arc<Session<S>>,
        reservation: Reservation<S::Key>,
    ) -> Result<Option<Grant>, LockError> {
        reservation.bind(session.number());
        let idle = self.pool.settings.claim_within(self.request.lease());
        let leaving = Leaving::Everything;
        let stood = self.stand_in_queue(session, &reservation, idle, leaving);
        match stood.await? {
            Stood::Granted => self.claim(session, reservation).await,
            Stood::Ended => self.release_ended_wait(session, reservation).await,
            Stood::Abandoned { clean, why } => {
                if clean {
                    drop(reservation);
                    self.pool.return_session(session);
                }
                Err(why)
            }
            Stood::Nothing => Ok(None),
        }
    }

    /// Stands in the server's queue on this session until the lock is granted or nobody wants it
    /// any more. After an error the session has ended.
    pub(super) async fn stand_in_queue(
        &mut self,
        session: &Arc<Session<S>>,
        reservation: &Reservation<S::Key>,
        idle: Duration,
        leaving: Leaving,
    ) -> Result<Stood, LockError> {
        let mut granting = Box::pin(session.lock(reservation.key, reservation.access, idle));
        let mut missed = false;
        let checks = match self.request.waits() {
            true => (self.request.lease() / 3).clamp(*CHECKS.start(), *CHECKS.end()),
            false => NO_WAIT,
        };
        // Only a look can show who is in the way of those who have seen nobody yet.
        let mut every = match self.request.is_contended() {
            true => checks,
            false => NO_WAIT,
        };
        let error = loop {
            let pause = tokio::time::sleep(std::mem::replace(&mut every, checks));
            match select(&mut granting, select(self.request.abandoned(), pause)).await {
                First::Left(Ok(())) => return Ok(Stood::Granted),
                First::Left(Err(error)) if error.ends_a_wait() => return Ok(Stood::Ended),
                First::Left(Err(error)) => break session.explain(error),
                First::Right(First::Left(())) => {
                    let clean = self
                        .cancel_wait(session, reservation, granting, leaving)
                        .await;
                    let why = LockErrorKind::Contended.into();
                    return Ok(Stood::Abandoned { clean, why });
                }
                First::Right(First::Right(())) => match self.look_at(session).await {
                    // Abandoned meanwhile, which is looked at next.
                    Ok(None) => {}
                    Ok(Some(Seen { waits: true, .. })) => {
                        missed = false;
                        let key = reservation.key;
                        let why = match self.is_behind_own(session, key).await {
                            true => given_up(),
                            false => {
                                self.request.report_contention();
                                LockErrorKind::Contended.into()
                            }
                        };
                        let is_late = self.deadline.end().is_none_or(Timestamp::has_passed);
                        if !self.request.waits() && (why.is_contention() || is_late) {
                            let clean = self.cancel_wait(session, reservation, granting, leaving);
                            let clean = clean.await;
                            return Ok(Stood::Abandoned { clean, why });
                        }
                        if !self.request.waits() {
                            every = NO_WAIT;
                        }
                    }
                    // The wait was granted or ended; if the word of it does not come soon, it is
                    // lost.
                    Ok(Some(_)) => {
                        let is_late = match self.deadline.end() {
                            Some(end) => end.has_passed(),
                            None => std::mem::replace(&mut missed, true),
                        };
                        if is_late {
                            session.end("the answer to a waiting request was lost");
                        }
                    }
                    // Its own connection works, or it would have ended; and nobody can ask now.
                    Err(error) if S::refusal(&error).is_some() => self.recovered(),
                    Err(error) => {
                        if !self.tolerates(&error) {
                            session.end("the server was out of reach for too long");
                            return Err(error);
                        }
                    }
                },
            }
        };
        drop(granting);
        self.pool.note_error(&error);
        if !session.has_ended() {
            // The wait was refused; the session may have the lock all the same.
            session.end("a waiting request failed");
        }
        match self.tolerates(&error) {
            true => Ok(Stood::Nothing),
            false => Err(error),
        }
    }

    /// Releases what a wait may have been granted that was ended just then, by its bound or since
    /// somebody waited for the end of its snapshot. `None` if that is done.
    async fn release_ended_wait(
        &mut self,
        session: &Arc<Session<S>>,
        reservation: Reservation<S::Key>,
    ) -> Result<Option<Grant>, LockError> {
        let releasing = session.within(self.patience(), session.client.unlock_all());
        match releasing.await {
            Ok(()) => {
                drop(reservation);
                self.recovered();
                self.pool.return_session(session);
                Ok(None)
            }
            Err(error) => {
                session.end("a waiting request could not be taken back");
                match self.tolerates(&error) {
                    true => Ok(None),
                    false => Err(error),
                }
            }
        }
    }

    /// Claims a lock that was granted at some time that is not known: the lease counts from the
    /// request for the token.
    async fn claim(
        &mut self,
        session: &Arc<Session<S>>,
        reservation: Reservation<S::Key>,
    ) -> Result<Option<Grant>, LockError> {
        self.request.report_unanswered(true);
        let claiming = session.claim(self.request.lease());
        let answer = session.within(self.patience(), claiming).await;
        self.request.report_unanswered(false);
        match answer.and_then(|granted| self.granted(session, reservation, granted)) {
            Ok(grant) => Ok(Some(grant)),
            Err(error) => {
                // The session holds this one lock alone, so its end releases it.
                session.end("the lock's token was not to be had");
                match self.tolerates(&error) {
                    true => Ok(None),
                    false => Err(error),
                }
            }
        }
    }

    /// Says whether this session waits for nobody but what this process has given up.
    async fn is_behind_own(&self, session: &Session<S>, key: S::Key) -> bool {
        if !self.pool.roster.has_ended_ones() {
            return false;
        }
        match self.pool.shared(self.pool.settings.lease).await {
            Ok(shared) => {
                self.is_unconfirmed(&shared, key, Some(session.backend.pid))
                    .await
            }
            // Nobody can tell who is in the way.
            Err(_) => true,
        }
    }

    /// Looks at a session from a shared one, since it cannot answer while it waits. Ends the wait if
    /// somebody waits for the end of its snapshot. `None` if the request is abandoned before it is
    /// answered: then nothing was seen.
    async fn look_at(&mut self, session: &Session<S>) -> Result<Option<Seen>, LockError> {
        let patience = self.pool.settings.patience(self.pool.settings.lease);
        self.request.report_unanswered(true);
        let asked = async {
            let shared = self.pool.shared(self.pool.settings.lease).await?;
            if !shared.knows(session.backend) {
                return Err(LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail("the sessions of this process are on two servers"));
            }
            let seen = shared.client.look_at(session.backend);
            let seen = shared.within(patience, seen).await?;
            if seen.waits && seen.is_in_the_way {
                let cancel = shared.client.cancel(session.backend);
                shared.within(patience, cancel).await?;
            }
            Ok(seen)
        };
        let answer = select(asked, self.request.abandoned()).await;
        self.request.report_unanswered(false);
        match answer {
            First::Left(Ok(seen)) => {
                self.recovered();
                Ok(Some(seen))
            }
            First::Left(Err(error)) => Err(error),
            First::Right(()) => Ok(None),
        }
    }

    /// Takes the request out of the server's queue, since nobody wants the lock any more. False if
    /// the session was ended for that.
    async fn cancel_wait(
        &self,
        session: &Arc<Session<S>>,
        reservation: &Reservation<S::Key>,
        mut granting: impl Future<Output = Answer<S, ()>> + Unpin,
        leaving: Leaving,
    ) -> bool {
        let cancelling = async {
            let shared = self.pool.shared(self.pool.settings.lease).await.ok()?;
            // A cancellation that comes before the request that it is meant for has no effect.
            while shared.knows(session.backend)
                && shared.client.cancel(session.backend).await.ok()?
            {
                let pause = tokio::time::sleep(CANCELS_EVERY);
                if let First::Left(_) = select(&mut granting, pause).await {
                    // The cancellation may have come just after the grant. Even the statement that
                    // took the lock may fail then, and keeps it.
                    return match leaving {
                        Leaving::Everything => session.client.unlock_all().await.ok(),
                        Leaving::TheLock => {
                            let unlocking = session.unlock(reservation.key, reservation.access);
                            unlocking.await.ok().map(drop)
                        }
                    };
                }
            }
            None
        };
        let clean = tokio::time::timeout(CANCELLATION, cancelling).await == Ok(Some(()));
        if !clean {
            session.end("the waiting request could not be cancelled");
            // Whoever has just given up learns that nobody can tell who holds the lock.
            self.request.report_trouble(Some(unanswered(CANCELLATION)));
        }
        clean
    }
}
