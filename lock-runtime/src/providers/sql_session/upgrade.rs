//! Sharing a lock with the right to hold it alone later.
//!
//! The right is a lock of its own, so only one at a time has it. A session that shares a lock is
//! let in to hold it alone before the others who wait, as soon as nobody else shares it. It must
//! be able to wait for that, and so it has no other locks.

use std::sync::Arc;
use std::time::Duration;

use super::acquisition::{Acquisition, FIRST_POLL, LAST_POLL};
use super::attempt::{CLEANUP_POLL, given_up};
use super::held::{Has, HeldLock, NOT_HELD, lost};
use super::queue::{Leaving, Stood};
use super::reservation::Reservation;
use super::session::Session;
use super::traits::{Access, LockSession, Tried};
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::provider::Grant;
use crate::providers::kit::backoff::jittered;
use crate::{LockError, LockErrorKind};

/// The two locks that are wanted.
struct Both<K: Copy + Eq + std::hash::Hash> {
    right: Reservation<K>,
    shared: Reservation<K>,
}

impl<S: LockSession> Acquisition<'_, S> {
    /// Shares the lock with the right to hold it alone, and waits for both if somebody has the
    /// right, or does not share the lock.
    pub(super) async fn run_upgradeable(mut self) -> Result<Grant, LockError> {
        let right = S::upgrade_key(&self.pool.full_name(self.request.name()));
        let mut poll = FIRST_POLL;
        loop {
            let tried = match self.reserve_both(right) {
                Ok(both) => self.both_on_own_session(both).await,
                Err(Some(error)) => Err(error),
                // This very provider has the lock alone, or the right.
                Err(None) => Ok(None),
            };
            match tried {
                Ok(Some(grant)) => return Ok(grant),
                Ok(None) => {}
                Err(error) if self.tolerates(&error) => {}
                Err(error) => return Err(error),
            }
            if !self.request.waits() || self.request.is_abandoned() {
                return Err(LockErrorKind::Contended.into());
            }
            let pause = tokio::time::sleep(jittered(poll));
            select(self.request.abandoned(), pause).await;
            poll = (poll * 2).min(LAST_POLL);
        }
    }

    fn reserve_both(&self, right: S::Key) -> Result<Both<S::Key>, Option<LockError>> {
        Ok(Both {
            right: self.pool.reserve(right, Access::Exclusive)?,
            shared: self.pool.reserve(self.key, Access::Shared)?,
        })
    }

    /// Takes both locks on a session of their own. `None` if that came to nothing.
    async fn both_on_own_session(
        &mut self,
        both: Both<S::Key>,
    ) -> Result<Option<Grant>, LockError> {
        let place = self.pool.queue_permit();
        if place.is_none() && self.request.waits() {
            return Ok(None);
        }
        let opening = self.in_time(self.pool.for_one_lock());
        let session = match select(opening, self.request.abandoned()).await {
            First::Left(Ok(Some(session))) => session,
            First::Left(Ok(None)) => {
                return Err(LockError::new(LockErrorKind::ProviderUnavailable).with_detail(
                    "an upgradeable read needs a session of its own, and there are as many as may be",
                ));
            }
            First::Left(Err(error)) => return Err(error),
            First::Right(()) => return Err(LockErrorKind::Contended.into()),
        };
        both.right.bind(session.number());
        both.shared.bind(session.number());
        self.request.report_trouble(None);
        let has = match self.request.waits() {
            true => self.wait_for_both(&session, &both).await?,
            false => self.try_both(&session, &both).await?,
        };
        drop(place);
        if !has {
            return Ok(None);
        }
        self.request.report_unanswered(true);
        let claiming = session.claim(self.request.lease());
        let answer = session.within(self.patience(), claiming).await;
        self.request.report_unanswered(false);
        let added = answer.and_then(|granted| {
            self.add_lock(&session, both.shared.key)?;
            Ok(granted)
        });
        match added {
            Ok(granted) => {
                self.recovered();
                let has = Has::Upgradeable {
                    shared: both.shared,
                    right: both.right,
                    is_alone: false,
                };
                Ok(Some(self.grant_of(&session, has, granted)))
            }
            Err(error) => {
                session.end("the lock's token was not to be had");
                Err(error)
            }
        }
    }

    /// Tries both locks; false if somebody has one of them.
    async fn try_both(
        &mut self,
        session: &Arc<Session<S>>,
        both: &Both<S::Key>,
    ) -> Result<bool, LockError> {
        self.request.report_unanswered(true);
        let mut wanted = [&both.right, &both.shared].into_iter().peekable();
        while let Some(lock) = wanted.peek() {
            let patience = self.patience();
            let left = self.deadline.end().map_or(patience, Timestamp::remaining);
            let trying = session.try_lock(lock.key, lock.access);
            match session.within(patience.min(left), trying).await {
                Ok(Tried::Granted(_)) => drop(wanted.next()),
                Ok(Tried::Held { .. })
                    if self.pool.roster.has_ended_ones()
                        && self.is_unconfirmed(session, lock.key, None).await =>
                {
                    let is_late = self.deadline.end().is_some_and(Timestamp::has_passed);
                    if is_late || self.request.is_abandoned() {
                        self.leave(session).await?;
                        return Err(given_up());
                    }
                    tokio::time::sleep(CLEANUP_POLL).await;
                }
                Ok(_) => {
                    self.request.report_contention();
                    self.leave(session).await?;
                    return Ok(false);
                }
                Err(error) => {
                    self.pool.note_error(&error);
                    session.end("a request was not answered");
                    return Err(error);
                }
            }
        }
        self.request.report_unanswered(false);
        Ok(true)
    }

    /// Waits for both locks in the server's queue; false if that came to nothing, and the session
    /// has neither.
    async fn wait_for_both(
        &mut self,
        session: &Arc<Session<S>>,
        both: &Both<S::Key>,
    ) -> Result<bool, LockError> {
        let idle = self.pool.settings.claim_within(self.request.lease());
        if !self.stand(session, &both.right, idle).await? {
            return Ok(false);
        }
        // The server would let it in past writers who wait for a notice.
        loop {
            let trying = session.try_lock(both.shared.key, Access::Shared);
            match session.within(self.patience(), trying).await {
                Ok(Tried::Granted(_)) => return Ok(true),
                Ok(Tried::Held { .. }) => return self.stand(session, &both.shared, idle).await,
                Ok(Tried::BehindNotices) => {
                    self.request.report_contention();
                    let pause = tokio::time::sleep(jittered(FIRST_POLL));
                    if let First::Left(()) = select(self.request.abandoned(), pause).await {
                        self.leave(session).await?;
                        return Ok(false);
                    }
                }
                Err(error) => {
                    self.pool.note_error(&error);
                    session.end("a request was not answered");
                    return Err(error);
                }
            }
        }
    }

    /// Stands in the queue for one of the two; false if the session has neither after that.
    async fn stand(
        &mut self,
        session: &Arc<Session<S>>,
        lock: &Reservation<S::Key>,
        idle: Duration,
    ) -> Result<bool, LockError> {
        let stood = self.stand_in_queue(session, lock, idle, Leaving::Everything);
        match stood.await? {
            Stood::Granted => Ok(true),
            Stood::Ended => {
                self.leave(session).await?;
                Ok(false)
            }
            Stood::Abandoned { clean, .. } => {
                if clean {
                    self.pool.return_session(session);
                }
                Ok(false)
            }
            Stood::Nothing => Ok(false),
        }
    }

    /// Releases what the session may have.
    async fn leave(&mut self, session: &Arc<Session<S>>) -> Result<(), LockError> {
        match session
            .within(self.patience(), session.client.unlock_all())
            .await
        {
            Ok(()) => {
                self.recovered();
                self.pool.return_session(session);
                Ok(())
            }
            Err(error) => {
                session.end("a request could not be taken back");
                Err(error)
            }
        }
    }

    /// Holds alone what this grant shares, as soon as nobody else shares it. After an error the
    /// grant is as it was, unless its session has ended.
    pub(super) async fn upgrade(mut self, grant: &Grant) -> Result<Grant, LockError> {
        let Some(held) = grant.state::<HeldLock<S>>() else {
            return Err(lost(NOT_HELD));
        };
        let session = &held.session;
        if let Some(why) = session.liveness().why_ended() {
            return Err(lost(why));
        }
        // Beside what the session shares.
        let alone = loop {
            match self.pool.reserve_upgrade(self.key) {
                Ok(alone) => break alone,
                // What this process has given up is being released.
                Err(Some(error)) if !self.tolerates(&error) => return Err(error),
                Err(Some(_)) if !self.request.is_abandoned() => {}
                Err(_) => return Err(LockErrorKind::Contended.into()),
            }
            let pause = tokio::time::sleep(CLEANUP_POLL);
            select(self.request.abandoned(), pause).await;
        };
        // If the session ends meanwhile, the grant is lost that it has now.
        let granted = loop {
            if self.request.is_abandoned() {
                return Err(LockErrorKind::Contended.into());
            }
            // When the wait is over, the session is kept for as long as before.
            let idle = session.lease();
            let stood = self.stand_in_queue(session, &alone, idle, Leaving::TheLock);
            match stood.await? {
                Stood::Granted => {
                    let claiming = session.claim(idle);
                    match session.within(self.patience(), claiming).await {
                        Ok(granted) => break granted,
                        Err(error) => {
                            session.end("the lock's token was not to be had");
                            return Err(error);
                        }
                    }
                }
                // Not granted, or given back so that nobody has to guess; it comes first again.
                Stood::Ended => {
                    let unlocking = session.unlock(alone.key, Access::Exclusive);
                    if let Err(error) = session.within(self.patience(), unlocking).await {
                        session.end("a waiting request could not be taken back");
                        return Err(error);
                    }
                }
                Stood::Abandoned { why, .. } => return Err(why),
                Stood::Nothing => {
                    return Err(LockError::new(LockErrorKind::ProviderUnavailable)
                        .with_detail(session.liveness().why_ended().unwrap_or_default()));
                }
            }
        };
        self.recovered();
        let Some(Has::Upgradeable { shared, right, .. }) = held.take() else {
            session.end(NOT_HELD);
            return Err(lost(NOT_HELD));
        };
        self.add_lock(session, shared.key)?;
        let has = Has::Upgradeable {
            shared,
            right,
            is_alone: true,
        };
        Ok(self.grant_of(session, has, granted))
    }
}
