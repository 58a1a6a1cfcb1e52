//! Acquiring: a try on a shared session, which is all there is to a lock that is free.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::unanswered;
use super::key::Keys;
use super::look::{InUse, look_before};
use super::pool::Pool;
use super::reservation::Reservation;
use super::session::{Granted, Session, Tried};
use super::undo::undo;
use super::wait::{FIRST_POLL, LAST_POLL, Place};
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant};
use crate::providers::pause::jittered;
use crate::race::{First, first_of};
use crate::token::FencingToken;
use crate::{LockError, LockErrorKind};

/// What a grant of this provider carries.
pub(super) struct Held {
    pub(super) session: Arc<Session>,
    reservation: Mutex<Option<Reservation>>,
    _in_use: Option<InUse>,
}

impl Held {
    pub(super) fn take_reservation(&self) -> Option<Reservation> {
        self.reservation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// How often a lock is tried again that this process itself is giving back.
const SWEEPING: Duration = Duration::from_millis(10);

/// What a try on a shared session came to.
pub(super) enum Found {
    Granted(Grant),
    Held(Place),
    /// It is being taken back from a session that this process has given up.
    Residue(Reservation),
    /// Nothing that is known; it is worth another look later.
    Nothing,
}

/// One acquisition under way.
pub(super) struct Acquisition<'a> {
    pub(super) pool: &'a Arc<Pool>,
    pub(super) request: &'a AcquireRequest,
    /// When a request that does not wait must have its answer.
    by: Option<Timestamp>,
    /// Since when the server has not been answering.
    outage: Option<Timestamp>,
    /// Goes over to the grant.
    in_use: Option<InUse>,
}

impl<'a> Acquisition<'a> {
    pub(super) fn new(pool: &'a Arc<Pool>, request: &'a AcquireRequest) -> Self {
        let patience = pool.settings.response_timeout;
        Self {
            pool,
            request,
            by: (!request.waits()).then(|| Timestamp::now() + patience),
            outage: None,
            in_use: Some(pool.leases.use_one(request.lease())),
        }
    }

    pub(super) async fn run(mut self) -> Result<Grant, LockError> {
        let keys = self.pool.keys(self.request.name());
        let mut place = Place::Queue;
        match self.pool.reserve(keys) {
            Ok(reservation) => match self.try_on_shared(reservation).await? {
                Found::Granted(grant) => return Ok(grant),
                Found::Held(beside) => place = beside,
                Found::Residue(_) | Found::Nothing => {}
            },
            // What an earlier request did is being undone.
            Err(Some(doubt)) if !self.bears(&doubt) => return Err(doubt),
            // Another name of the same key is held by this very provider.
            Err(_) => {}
        }
        if !self.request.waits() {
            return Err(LockErrorKind::Contended.into());
        }
        Box::pin(self.wait(place)).await
    }

    /// Goes on with a lock that is held: releases it and tries it again in one round trip, so that
    /// whoever waits for it on the server comes first.
    pub(super) async fn go_on_from(mut self, held: &Held) -> Result<Grant, LockError> {
        let Some(reservation) = held.take_reservation() else {
            return self.run().await;
        };
        let session = &held.session;
        session.life.let_go(reservation.keys.lock);
        let patience = self.pool.settings.patience(self.request.lease());
        self.request.report_unanswered(true);
        let answer = session
            .within(patience, session.relock(reservation.keys))
            .await;
        self.request.report_unanswered(false);
        match answer {
            Ok((true, Tried::Granted(granted))) => {
                match self.granted(session, reservation, granted) {
                    Err(error) if self.bears(&error) => Box::pin(self.wait(Place::Queue)).await,
                    granted => granted,
                }
            }
            Ok((true, Tried::Held { others_wait })) => {
                // The next one in the server's queue has it, or one who was told.
                self.request.report_contention();
                let keys = reservation.keys;
                drop(reservation);
                let others = others_wait.then_some(Place::AfterOthers);
                let place = self.place_beside(session, keys, others).await;
                self.pool.give_back(session);
                match self.request.waits() {
                    true => Box::pin(self.wait(place)).await,
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
                self.pool.note(&error);
                undo(self.pool, session, reservation, &error);
                match self.bears(&error) {
                    true => Box::pin(self.wait(Place::Queue)).await,
                    false => Err(error),
                }
            }
        }
    }

    /// Tries it on a session that is shared.
    pub(super) async fn try_on_shared(
        &mut self,
        reservation: Reservation,
    ) -> Result<Found, LockError> {
        self.request.report_unanswered(true);
        let answer = self.ask_on_shared(reservation).await;
        self.request.report_unanswered(false);
        answer
    }

    async fn ask_on_shared(&mut self, mut reservation: Reservation) -> Result<Found, LockError> {
        let look = look_before(self.pool, self.request.lease());
        first_of(look, self.request.abandoned()).await;
        let mut pause = Duration::ZERO;
        let patience = self.pool.settings.patience(self.request.lease());
        let swept_by = self.by.unwrap_or_else(|| Timestamp::now() + patience);
        loop {
            let opening = self.in_time(self.pool.shared(self.request.lease()));
            let session = match first_of(opening, self.request.abandoned()).await {
                First::Left(Ok(session)) => session,
                First::Left(Err(error)) if self.bears(&error) => continue,
                First::Left(Err(error)) => return Err(error),
                First::Right(()) => return Err(LockErrorKind::Contended.into()),
            };
            match self.try_on(&session, reservation).await {
                Ok(Found::Residue(untried)) if !swept_by.has_passed() => {
                    reservation = untried;
                    tokio::time::sleep(SWEEPING).await;
                    continue;
                }
                Ok(Found::Residue(_)) => {
                    let error = LockError::new(LockErrorKind::ProviderUnavailable)
                        .with_detail("a session that this process has given up still has the lock");
                    return match self.bears(&error) {
                        true => Ok(Found::Nothing),
                        false => Err(error),
                    };
                }
                Ok(found) => return Ok(found),
                // What it took died with it.
                Err((error, Some(untried))) => {
                    // A session that was idle may be found dead only now.
                    if !pause.is_zero() && !self.bears(&error) {
                        return Err(error);
                    }
                    reservation = untried;
                }
                Err((error, None)) => return Err(error),
            }
            first_of(
                tokio::time::sleep(jittered(pause)),
                self.request.abandoned(),
            )
            .await;
            pause = (pause * 2).clamp(2 * FIRST_POLL, 2 * LAST_POLL);
        }
    }

    /// Whether a session has it that this process has given up, or nobody any more. Then nobody else
    /// was seen to hold it.
    async fn is_residue(&self, session: &Session, keys: Keys) -> bool {
        let patience = self.pool.settings.patience(self.request.lease());
        let holders = session.within(patience, session.holders(keys)).await;
        holders.is_ok_and(|pids| pids.is_empty() || self.pool.gave_up(&pids))
    }

    /// Tries it on this session. An error with the reservation is that of a session that has ended.
    pub(super) async fn try_on(
        &mut self,
        session: &Arc<Session>,
        reservation: Reservation,
    ) -> Result<Found, (LockError, Option<Reservation>)> {
        let patience = self.pool.settings.patience(self.request.lease());
        let left = self.by.map_or(patience, Timestamp::remaining);
        let trying = session.try_lock(reservation.keys);
        let error = match session.within(patience.min(left), trying).await {
            Ok(Tried::Granted(granted)) => {
                self.recovered();
                return match self.granted(session, reservation, granted) {
                    Ok(grant) => Ok(Found::Granted(grant)),
                    Err(error) if self.bears(&error) => Ok(Found::Nothing),
                    Err(error) => Err((error, None)),
                };
            }
            Ok(Tried::Held { others_wait }) => {
                self.recovered();
                if self.pool.has_given_up() && self.is_residue(session, reservation.keys).await {
                    return Ok(Found::Residue(reservation));
                }
                self.request.report_contention();
                let others = others_wait.then_some(Place::Notice);
                let place = self.place_beside(session, reservation.keys, others);
                return Ok(Found::Held(place.await));
            }
            Err(error) => error,
        };
        self.pool.note(&error);
        if session.life.has_ended() {
            return Err((error, Some(reservation)));
        }
        // Refused, or not answered in time: then it may be granted yet.
        undo(self.pool, session, reservation, &error);
        match self.bears(&error) {
            true => Ok(Found::Nothing),
            false => Err((error, None)),
        }
    }

    /// An answer that comes in time for a request that does not wait.
    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, LockError>>,
    ) -> Result<T, LockError> {
        let Some(by) = self.by else {
            return answer.await;
        };
        let settings = &self.pool.settings;
        let answer = tokio::time::timeout(by.remaining(), answer).await;
        answer.unwrap_or_else(|_| {
            let error = unanswered(settings.response_timeout);
            Err(error.about(format_args!("server `{}`", settings.server_name)))
        })
    }

    /// # Errors
    ///
    /// If the session has ended meanwhile, and the lock with it.
    pub(super) fn granted(
        &mut self,
        session: &Arc<Session>,
        reservation: Reservation,
        granted: Granted,
    ) -> Result<Grant, LockError> {
        let loss = self.request.loss_reporter();
        if !session.life.hold(reservation.keys.lock, loss) {
            return Err(LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail(session.life.why_ended().unwrap_or_default()));
        }
        let held = Held {
            session: Arc::clone(session),
            reservation: Mutex::new(Some(reservation)),
            _in_use: self.in_use.take(),
        };
        let grant = Grant::new(self.request, granted.sent_at)
            .with_server_lease(session.lease())
            .with_state(held);
        Ok(match granted.token {
            Some(token) => grant.with_token(FencingToken::new(token)),
            None => grant,
        })
    }

    /// Whether to put up with an error: only who waits does, and only for so long.
    pub(super) fn bears(&mut self, error: &LockError) -> bool {
        let since = *self.outage.get_or_insert_with(Timestamp::now);
        let bears = self.request.waits()
            && error.is_retryable()
            && !(since + self.pool.settings.connect_timeout).has_passed();
        if bears {
            self.request.report_trouble(Some(error.clone()));
        }
        bears
    }

    pub(super) fn recovered(&mut self) {
        if self.outage.take().is_some() {
            self.request.report_trouble(None);
        }
    }
}

pub(super) const NOT_HELD: &str = "the server had given a lock up before its holder did";
