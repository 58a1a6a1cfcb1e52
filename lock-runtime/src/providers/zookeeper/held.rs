//! A lock that is held: the provider's own part of a grant, and the watch over its node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zookeeper_client::{Error, EventType};

use super::node::{Created, LONGEST_PAUSE, Node, PAUSE};
use crate::LockError;
use crate::background;
use crate::future::{First, select};
use crate::provider::{Grant, LossReporter, OwnerId};
use crate::providers::kit::backoff::Pauses;
use crate::providers::kit::error::lost;
use crate::providers::kit::fault::Fault;
use crate::signal::Signal;

/// A lock held for less than this is not looked at.
const BEFORE_WATCHING: Duration = Duration::from_millis(20);
pub(super) const REMOVED: &str = "its node was removed by somebody else";
const GONE: &str = "its session has no connection, and its node is gone from the ensemble";
/// How long a session is without a connection before another one is asked.
const BEFORE_LOOKING: Duration = Duration::from_millis(500);

/// What a grant of this provider carries with it.
pub(super) struct Held {
    pub(super) node: Node,
    pub(super) created: Created,
    id: OwnerId,
    /// It is being released.
    let_go: Signal<()>,
    /// Somebody else has removed the node.
    removed: AtomicBool,
    /// The removal of its node is done, or has been seen to.
    removal_seen_to: AtomicBool,
}

impl Held {
    pub(super) fn new(node: Node, created: Created, id: OwnerId, loss: &LossReporter) -> Arc<Self> {
        let held = Arc::new(Self {
            node,
            created,
            id,
            let_go: Signal::new(),
            removed: AtomicBool::new(false),
            removal_seen_to: AtomicBool::new(false),
        });
        held.node.session.hold(id, loss);
        background::spawn_beside(Arc::clone(&held).watch(loss.clone()));
        held
    }

    /// Returns what a grant of this provider carries.
    pub(super) fn of(grant: &Grant) -> Option<&Arc<Self>> {
        grant.state()
    }

    /// Says why the lock is lost, if that is known.
    pub(super) fn loss(&self) -> Option<LockError> {
        if let Some(why) = self.node.session.why_ended() {
            Some(lost(why))
        } else if self.removed.load(Ordering::Acquire) {
            Some(lost(REMOVED))
        } else {
            None
        }
    }

    /// Returns the node's path.
    pub(super) fn path(&self) -> String {
        self.node.lock.child(&self.created.name)
    }

    pub(super) fn was_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Makes its end nobody's loss from here on.
    pub(super) fn let_go(&self) {
        self.let_go.set(());
        self.node.session.let_go(self.id);
    }

    /// Sees to the removal of the node, if that is not gone, after it was let go for a new
    /// acquisition.
    pub(super) fn release_unconfirmed(&self, is_gone: bool) {
        let seen_to = self.removal_seen_to.swap(true, Ordering::AcqRel);
        if !seen_to && !is_gone && self.loss().is_none() {
            self.release_unconfirmed_later();
        }
    }

    pub(super) fn release_unconfirmed_later(&self) {
        let created = Some(self.created.clone());
        self.node.clone().release_unconfirmed_later(created);
    }

    /// Has the server tell when the node is gone, and reports the loss.
    async fn watch(self: Arc<Self>, loss: LossReporter) {
        let watching = async {
            tokio::time::sleep(BEFORE_WATCHING).await;
            loop {
                match self.look().await {
                    Ok(true) => {}
                    Ok(false) => return true,
                    Err(error) => match self.node.session.note(&error) {
                        Fault::Interrupted | Fault::Unanswered => {}
                        Fault::Busy => tokio::time::sleep(PAUSE).await,
                        // Then its deadline alone tells of a loss.
                        _ => return false,
                    },
                }
            }
        };
        let watching = async {
            match select(watching, self.missed_by_another()).await {
                First::Left(removed) => removed.then_some(REMOVED),
                First::Right(()) => Some(GONE),
            }
        };
        if let First::Right(Some(why)) = select(self.let_go.wait(), watching).await {
            self.was_removed();
            self.node.session.let_go(self.id);
            loss.report(why);
        }
    }

    /// Waits until the session has no connection and another one finds that the node is gone: so is
    /// the session then, or all data of the ensemble. A server that has lost its data hangs up on
    /// clients that have seen more than it has.
    async fn missed_by_another(&self) {
        let mut pauses = Pauses::new(BEFORE_LOOKING, LONGEST_PAUSE);
        loop {
            let pause = pauses.advance();
            self.node.session.out_for(pause).await;
            if let Ok(other) = self.node.pool.beside(&self.node.session).await {
                let seen = self.node.is_seen_by(&other, &self.created).await;
                if let Ok(false) = seen {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until something happens to the node, and says whether it is there nonetheless.
    async fn look(&self) -> Result<bool, Error> {
        let path = self.path();
        match self.node.session.client.get_and_watch_data(&path).await {
            Ok((_, stat, watcher)) if self.node.is_same(&self.created, &stat) => {
                let event = watcher.changed().await;
                match event.event_type {
                    EventType::Session => Err(Error::SessionExpired),
                    event => Ok(event != EventType::NodeDeleted),
                }
            }
            Ok(_) | Err(Error::NoNode) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
