//! Acquiring: try on a shared session, wait on one of its own, and take back whatever is left if it
//! fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::pool::{Pool, Reservation};
use super::session::Session;
use crate::clock::Timestamp;
use crate::guard::FencingToken;
use crate::provider::{AcquireRequest, Grant};
use crate::providers::pause::jittered;
use crate::race::{First, first_of};
use crate::{LockError, LockErrorKind};

/// Who has no place in the server's queue looks this often, at first and later.
const FIRST_POLL: Duration = Duration::from_millis(25);
const LAST_POLL: Duration = Duration::from_millis(400);
/// A waiter that hears nothing makes sure this often that the server still knows it to wait.
const CHECKS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(10);
/// Somebody who gives up is kept waiting no longer than about this.
const WITHDRAWAL: Duration = Duration::from_millis(800);
const CANCELS_EVERY: Duration = Duration::from_millis(30);

/// What a grant of this provider carries.
pub(super) struct Held {
    pub(super) session: Arc<Session>,
    reservation: Mutex<Option<Reservation>>,
}

impl Held {
    pub(super) fn take_reservation(&self) -> Option<Reservation> {
        self.reservation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// One acquisition under way.
pub(super) struct Acquisition<'a> {
    pool: &'a Arc<Pool>,
    request: &'a AcquireRequest,
    /// Since when the server has not been answering.
    outage: Option<Timestamp>,
}

impl<'a> Acquisition<'a> {
    pub(super) fn new(pool: &'a Arc<Pool>, request: &'a AcquireRequest) -> Self {
        Self {
            pool,
            request,
            outage: None,
        }
    }

    pub(super) async fn run(mut self) -> Result<Grant, LockError> {
        let key = self.pool.key(self.request.name());
        match self.pool.reserve(key) {
            Some(reservation) => {
                if let Some(grant) = self.try_on_shared(reservation).await? {
                    return Ok(grant);
                }
            }
            // Another name of the same key is held by this very provider.
            None if !self.request.waits() => return Err(LockErrorKind::Contended.into()),
            None => {}
        }
        if !self.request.waits() {
            return Err(LockErrorKind::Contended.into());
        }
        Box::pin(self.wait()).await
    }

    /// Goes on with a lock that is held: releases it and tries it again in one round trip, so that
    /// whoever waits for it on the server comes first.
    pub(super) async fn go_on_from(self, held: &Held) -> Result<Grant, LockError> {
        let Some(reservation) = held.take_reservation() else {
            return self.run().await;
        };
        let (session, key) = (&held.session, reservation.key);
        session.life.let_go(key);
        let patience = self.pool.settings.patience(self.request.lease());
        match session.within(patience, session.relock(key)).await {
            Ok((true, (sent_at, Some(transaction)))) => {
                self.granted(session, reservation, sent_at, transaction)
            }
            Ok((true, (_, None))) => {
                drop(reservation);
                self.pool.give_back(session);
                match self.request.waits() {
                    true => Box::pin(self.wait()).await,
                    false => Err(LockErrorKind::Contended.into()),
                }
            }
            Ok((false, _)) => {
                // The old grant was over already. What else the session knows is worth nothing.
                session.life.end(NOT_HELD);
                drop(reservation);
                Box::pin(self.run()).await
            }
            Err(error) if session.life.has_ended() => {
                drop(reservation);
                tracing::debug!(%error, "the session of a lock that was passed on has ended");
                Box::pin(self.run()).await
            }
            Err(error) => {
                undo(session, reservation);
                Err(error)
            }
        }
    }

    /// `None` if somebody else has the lock.
    async fn try_on_shared(
        &mut self,
        reservation: Reservation,
    ) -> Result<Option<Grant>, LockError> {
        let patience = self.pool.settings.patience(self.request.lease());
        let mut first_try = true;
        loop {
            let opening = self.pool.shared(self.request.lease());
            let session = match first_of(opening, self.request.abandoned()).await {
                First::Left(Ok(session)) => session,
                First::Left(Err(error)) if self.bears(&error) => continue,
                First::Left(Err(error)) => return Err(error),
                First::Right(()) => return Err(LockErrorKind::Contended.into()),
            };
            let trying = session.try_lock(reservation.key);
            let error = match session.within(patience, trying).await {
                Ok((sent_at, Some(transaction))) => {
                    self.recovered();
                    return self
                        .granted(&session, reservation, sent_at, transaction)
                        .map(Some);
                }
                Ok((_, None)) => {
                    self.recovered();
                    return Ok(None);
                }
                Err(error) => error,
            };
            if !session.life.has_ended() {
                // Refused, or not answered in time: then it may be granted yet.
                undo(&session, reservation);
                return Err(error);
            }
            // A session that was idle may be found dead only now, and what it took died with it.
            if !std::mem::take(&mut first_try) && !self.bears(&error) {
                return Err(error);
            }
        }
    }

    async fn wait(mut self) -> Result<Grant, LockError> {
        let key = self.pool.key(self.request.name());
        let mut poll = FIRST_POLL;
        loop {
            if self.request.is_abandoned() {
                return Err(LockErrorKind::Contended.into());
            }
            if let Some(reservation) = self.pool.reserve(key) {
                match self.pool.for_one_lock(self.request.lease()).await {
                    Ok(Some(session)) => {
                        self.recovered();
                        if let Some(grant) = self.wait_on(&session, reservation).await? {
                            return Ok(grant);
                        }
                        continue;
                    }
                    // Without a session for it, it is tried now and then.
                    Ok(None) => {
                        if let Some(grant) = self.try_on_shared(reservation).await? {
                            return Ok(grant);
                        }
                    }
                    Err(error) if self.bears(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            let pause = tokio::time::sleep(jittered(poll));
            first_of(self.request.abandoned(), pause).await;
            poll = (poll * 2).min(LAST_POLL);
        }
    }

    /// Waits in the server's queue. `None` if the session has ended meanwhile, and it may wait on
    /// another one.
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
                First::Right(First::Right(())) => {
                    let waits = self.server_sees_waiting(session).await;
                    if waits == Some(false) && std::mem::replace(&mut missed, true) {
                        // It was granted or ended, and the word of it lost.
                        session.life.end("the answer to a waiting request was lost");
                    }
                    missed &= waits != Some(true);
                }
            }
        };
        drop(granting);
        if !session.life.has_ended() {
            // Refused, or cancelled by somebody: it may have the lock all the same.
            session.life.end("a waiting request failed");
            return Err(error);
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
        match session.within(patience, session.token()).await {
            Ok((sent_at, transaction)) => self
                .granted(session, reservation, sent_at, transaction)
                .map(Some),
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

    /// Asks on another session, since this one cannot answer while it waits. `None` if that is not
    /// to be learnt.
    async fn server_sees_waiting(&mut self, session: &Session) -> Option<bool> {
        let patience = self.pool.settings.patience(self.request.lease());
        let asked = async {
            let shared = self.pool.shared(self.request.lease()).await?;
            shared
                .within(patience, shared.sees_waiting(session.pid))
                .await
        };
        match asked.await {
            Ok(waits) => {
                self.recovered();
                Some(waits)
            }
            Err(error) => {
                self.request.report_trouble(Some(error));
                None
            }
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
            let shared = self.pool.shared(self.request.lease()).await.ok()?;
            // One that comes before the request that it is to cancel has no effect.
            while shared.cancel(session.pid).await.ok()? {
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
        }
    }

    fn granted(
        &self,
        session: &Arc<Session>,
        reservation: Reservation,
        sent_at: Timestamp,
        transaction: i64,
    ) -> Result<Grant, LockError> {
        let loss = self.request.loss_reporter();
        if !session.life.hold(reservation.key, loss) {
            return Err(LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail(session.life.why_ended().unwrap_or_default()));
        }
        let token = FencingToken::new(session.fencing_token(transaction));
        let held = Held {
            session: Arc::clone(session),
            reservation: Mutex::new(Some(reservation)),
        };
        Ok(Grant::new(self.request, sent_at)
            .with_token(token)
            .with_state(held))
    }

    /// Whether to put up with an error: only who waits does, and only for so long.
    fn bears(&mut self, error: &LockError) -> bool {
        let since = *self.outage.get_or_insert_with(Timestamp::now);
        let bears = self.request.waits()
            && error.is_retryable()
            && !(since + self.pool.settings.connect_timeout).has_passed();
        if bears {
            self.request.report_trouble(Some(error.clone()));
        }
        bears
    }

    fn recovered(&mut self) {
        if self.outage.take().is_some() {
            self.request.report_trouble(None);
        }
    }
}

pub(super) const NOT_HELD: &str = "the server had given a lock up before its holder did";

/// Takes back what a request may have done whose answer has not come. Requests of a session are
/// carried out in order, so this one comes after it; and if the session ends, all is undone.
pub(super) fn undo(session: &Arc<Session>, reservation: Reservation) {
    let session = Arc::clone(session);
    tokio::spawn(async move {
        let _ = session.unlock(reservation.key).await;
    });
}
