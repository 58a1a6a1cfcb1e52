//! Acquiring: queue on a session, on another one if that ends, and take the node back if it comes
//! to nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use zookeeper_client::Error;

use super::error::{lock_error, unanswered};
use super::held::Held;
use super::node::Node;
use super::path::LockPath;
use super::queue::places;
use super::session::{ROOM, Room, Session};
use super::session_pool::SessionPool;
use super::waiting::{Known, Miss, Waiting};
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::provider::{AcquireRequest, Grant};
use crate::providers::kit::error::invalid;
use crate::providers::kit::fault::Fault;
use crate::providers::kit::outage::Outage;
use crate::{LockError, LockErrorKind};

/// The pause between two attempts of a waiter to reach the ensemble.
const PAUSE: Duration = Duration::from_millis(100);

/// One acquisition under way.
pub(super) struct Acquisition<'a> {
    pool: &'a Arc<SessionPool>,
    request: &'a AcquireRequest,
    lock: LockPath,
    owner: String,
    /// By when a request that does not wait has an answer.
    by: Timestamp,
}

impl<'a> Acquisition<'a> {
    pub(super) fn new(pool: &'a Arc<SessionPool>, request: &'a AcquireRequest) -> Self {
        Self {
            pool,
            request,
            lock: pool.path(request.name(), request.mode()),
            owner: pool.owner(request.owner()),
            by: pool.answers_by(),
        }
    }

    /// Acquires the lock. `old` is given up as soon as the owner queues.
    pub(super) async fn run(self, mut old: Option<&Held>) -> Result<Grant, LockError> {
        if self.lock.length() > ROOM && places(self.request.mode()) > 1 {
            return Err(self.too_many());
        }
        let mut outage = Outage::new(self.pool.settings.common.connect_timeout);
        loop {
            self.request.report_unanswered(true);
            let room = async {
                match old {
                    // On the same session it need not wait for the old one's node to go.
                    Some(old) if self.fits_into_the_room_of(old) => Ok(Arc::clone(&old.node.room)),
                    _ => self.pool.room(&self.lock).await,
                }
            };
            let error = match select(room, self.given_up()).await {
                First::Right(Miss::Unanswered) => return Err(self.pool.about(unanswered())),
                First::Right(_) => return Err(LockErrorKind::Contended.into()),
                First::Left(Err(error)) => error,
                First::Left(Ok(room)) => {
                    outage.is_over(self.request);
                    match self.queue_on(room, old.take()).await {
                        Ok(grant) => return Ok(grant),
                        Err(None) => self.pool.about(lock_error(Error::SessionExpired)),
                        Err(Some(error)) => return Err(error),
                    }
                }
            };
            // A session that ended while nobody looked is not the caller's concern. An ensemble
            // that is gone is, after a while.
            outage.note(self.request, &error);
            let until = match self.request.waits() {
                true => outage.ends_at(),
                false => self.by,
            };
            if !error.is_retryable() || until.has_passed() {
                return Err(error);
            }
            tokio::time::sleep(PAUSE.min(until.remaining())).await;
        }
    }

    /// Says whether the nodes may take the place of the old ones on a session that lives.
    fn fits_into_the_room_of(&self, old: &Held) -> bool {
        let places = |lock: &LockPath| places(lock.mode());
        !old.node.session.has_ended() && places(&self.lock) == places(&old.node.lock)
    }

    /// Returns the error for more permits than a connection could tell a server of.
    fn too_many(&self) -> LockError {
        let most = ROOM / self.lock.child_length();
        invalid(format!(
            "expected at most {most} permits of this name at once: each is a node to be watched"
        ))
    }

    /// Queues on this session; `Err(None)` if it ended.
    async fn queue_on(
        &self,
        room: Arc<Room>,
        old: Option<&Held>,
    ) -> Result<Grant, Option<LockError>> {
        let session = &Arc::clone(room.session());
        let node = Node {
            pool: Arc::clone(self.pool),
            session: Arc::clone(session),
            room,
            lock: self.lock.clone(),
            owner: self.owner.clone(),
        };
        let known = Known::default();
        let miss = {
            let waiting = Waiting {
                request: self.request,
                node: &node,
                known: &known,
            };
            let ended = select(session.ended(), self.stranded(&node, &known));
            let taking = async {
                match select(waiting.run(old), ended).await {
                    First::Left(outcome) => outcome,
                    First::Right(First::Left(())) => Err(Miss::Ended),
                    First::Right(First::Right(())) => Err(Miss::Stranded),
                }
            };
            let given_up = select(self.given_up(), self.report_trouble(session));
            match select(taking, given_up).await {
                First::Left(Ok(grant)) => return Ok(grant),
                First::Left(Err(miss)) => miss,
                First::Right(First::Left(miss)) => miss,
                First::Right(First::Right(never)) => match never {},
            }
        };
        let created = known.get();
        let error = match miss {
            Miss::Held | Miss::Abandoned => LockErrorKind::Contended.into(),
            Miss::NoLock(path) => invalid(format!(
                "the node `{path}` stands before all locks and is not ephemeral; no lock is, and \
                 it would hold for ever"
            )),
            Miss::NoNumber => self.pool.about(lock_error(Error::NodeExists)),
            Miss::Ended => return Err(None),
            Miss::Stranded => {
                node.release_unconfirmed_later(created);
                return Err(None);
            }
            Miss::Unanswered => {
                node.release_unconfirmed_later(created);
                return Err(Some(self.pool.about(unanswered())));
            }
            Miss::Failed(error) => {
                if session.note(&error) == Fault::Ended {
                    return Err(None);
                }
                let error = self.pool.about(lock_error(error));
                // If the node was refused there is none.
                if created.is_none() {
                    return Err(Some(error));
                }
                error
            }
        };
        if session.is_connected() {
            self.request.report_unanswered(true);
        }
        let limit = match self.request.waits() {
            true => self.pool.settings.common.response_timeout,
            false => self.by.remaining(),
        };
        node.release_unconfirmed(created, limit).await;
        Err(Some(error))
    }

    /// Waits until the session has had no connection for long, another one has, and nothing is lost
    /// by going over: there is no node yet, or it is gone.
    async fn stranded(&self, node: &Node, known: &Known) {
        let pause = self.pool.long_outage();
        loop {
            node.session.out_for(pause).await;
            if let Ok(other) = self.pool.beside(&node.session).await {
                let Some(created) = known.get() else {
                    return;
                };
                if let Ok(false) = node.is_seen_by(&other, &created).await {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until the request is abandoned, or, if it does not wait, until its time is over.
    async fn given_up(&self) -> Miss {
        if self.request.waits() {
            self.request.abandoned().await;
            return Miss::Abandoned;
        }
        let limit = tokio::time::sleep(self.by.remaining());
        match select(self.request.abandoned(), limit).await {
            First::Left(()) => Miss::Abandoned,
            First::Right(()) => Miss::Unanswered,
        }
    }

    /// Says while the connection is gone that it is.
    async fn report_trouble(&self, session: &Session) -> Infallible {
        let mut watcher = session.client.state_watcher();
        loop {
            let trouble = (!session.is_connected())
                .then(|| self.pool.about(lock_error(Error::ConnectionLoss)));
            self.request.report_trouble(trouble);
            watcher.changed().await;
        }
    }
}
