//! One acquisition under way: how long it puts up with an outage, and the grant that it ends with.

use std::sync::Arc;
use std::time::Duration;

use super::held::{Has, HeldLock};
use super::leases::LeaseInUse;
use super::pool::Pool;
use super::reservation::Reservation;
use super::session::Session;
use super::traits::{Access, Granted, LockSession};
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant, LockMode, LossReporter};
use crate::providers::kit::deadline::Deadline;
use crate::providers::kit::outage::Outage;
use crate::token::FencingToken;
use crate::{LockError, LockErrorKind};

/// Whoever waits for a notice tries this often besides, at first and later: not everybody who
/// releases a lock sends one.
pub(super) const FIRST_POLL: Duration = Duration::from_millis(25);
pub(super) const LAST_POLL: Duration = Duration::from_millis(400);

/// One acquisition under way.
pub(super) struct Acquisition<'a, S: LockSession> {
    pub(super) pool: &'a Arc<Pool<S>>,
    pub(super) request: &'a AcquireRequest,
    /// The lock that is acquired: the request's own, or another one on the way to it.
    pub(super) key: S::Key,
    pub(super) access: Access,
    /// Hears of the end of a session that has the lock.
    loss: LossReporter,
    /// When a request that does not wait must have its answer.
    pub(super) deadline: Deadline,
    outage: Outage,
    /// Goes over to the grant.
    lease_in_use: Option<LeaseInUse>,
}

/// Where to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitPlace {
    /// In the server's queue.
    Queue,
    /// For a notice, since others do: whoever stands in the queue would always come before them.
    Notice,
    /// The same, but the others were just sent a notice: they try first.
    NoticeAfterOthers,
}

impl<'a, S: LockSession> Acquisition<'a, S> {
    pub(super) fn new(pool: &'a Arc<Pool<S>>, request: &'a AcquireRequest) -> Self {
        let access = match request.mode() {
            LockMode::Read => Access::Shared,
            _ => Access::Exclusive,
        };
        let (key, loss) = (pool.key(request.name()), request.loss_reporter());
        Self::of_key(pool, request, key, access, loss)
    }

    /// Makes one for another lock that the request needs on its way. Its loss is not that of the
    /// request's grant.
    pub(super) fn on_the_way(
        pool: &'a Arc<Pool<S>>,
        request: &'a AcquireRequest,
        key: S::Key,
    ) -> Result<Self, LockError> {
        let (part, _) = AcquireRequest::new(request.name().clone(), request.lease(), true)?;
        let loss = part.loss_reporter();
        Ok(Self::of_key(pool, request, key, Access::Exclusive, loss))
    }

    fn of_key(
        pool: &'a Arc<Pool<S>>,
        request: &'a AcquireRequest,
        key: S::Key,
        access: Access,
        loss: LossReporter,
    ) -> Self {
        let patience = pool.settings.response_timeout;
        Self {
            pool,
            request,
            key,
            access,
            loss,
            deadline: Deadline::new(request, Timestamp::now(), patience),
            outage: Outage::new(pool.settings.connect_timeout),
            lease_in_use: Some(pool.leases.use_one(request.lease())),
        }
    }

    /// Returns how long a request may take that must be quick.
    pub(super) fn patience(&self) -> Duration {
        self.pool.settings.patience(self.request.lease())
    }

    /// Waits for an answer that comes in time for a request that does not wait.
    pub(super) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, LockError>>,
    ) -> Result<T, LockError> {
        let answer = self.deadline.keep(answer).await;
        answer.unwrap_or_else(|late| {
            let server = &self.pool.settings.server_name;
            Err(late.about(format_args!("server `{server}`")))
        })
    }

    /// Makes the grant.
    ///
    /// # Errors
    ///
    /// If the session has ended meanwhile, and the lock with it.
    pub(super) fn granted(
        &mut self,
        session: &Arc<Session<S>>,
        reservation: Reservation<S::Key>,
        granted: Granted,
    ) -> Result<Grant, LockError> {
        self.add_lock(session, reservation.key)?;
        Ok(self.grant_of(session, Has::Lock(reservation), granted))
    }

    /// Makes the end of the session the loss of this lock.
    ///
    /// # Errors
    ///
    /// If the session has ended meanwhile, and the lock with it.
    pub(super) fn add_lock(&self, session: &Session<S>, key: S::Key) -> Result<(), LockError> {
        let liveness = session.liveness();
        match liveness.add_lock(key, self.loss.clone()) {
            true => Ok(()),
            false => Err(LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail(liveness.why_ended().unwrap_or_default())),
        }
    }

    /// Makes the grant of what the session has.
    pub(super) fn grant_of(
        &mut self,
        session: &Arc<Session<S>>,
        has: Has<S>,
        granted: Granted,
    ) -> Grant {
        let held = HeldLock::new(session, has, self.lease_in_use.take());
        let grant = Grant::new(self.request, granted.sent_at)
            .with_server_lease(session.lease())
            .with_state(held);
        match granted.token {
            Some(token) => grant.with_token(FencingToken::new(token)),
            None => grant,
        }
    }

    /// Says whether to put up with an error: only a request that waits does, and only for so long.
    pub(super) fn tolerates(&mut self, error: &LockError) -> bool {
        self.outage.tolerates(self.request, error)
    }

    /// Notes that the server has answered.
    pub(super) fn recovered(&mut self) {
        self.outage.is_over(self.request);
    }
}
