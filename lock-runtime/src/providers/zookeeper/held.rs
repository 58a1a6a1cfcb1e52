//! A lock that is held: the provider's own part of a grant, the eye on its node, and its release.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zookeeper_client::{Error, EventType};

use super::error::{Fault, lock_error, lost, unanswered};
use super::node::{Created, LONGEST_PAUSE, Node, PAUSE};
use super::session::ENDED;
use crate::LockError;
use crate::provider::{LossReporter, OwnerId};
use crate::race::{First, first_of};
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
    /// It is being given up.
    given_up: Signal<()>,
    /// Somebody else has removed the node.
    removed: AtomicBool,
    /// Its removal is done, or has been seen to.
    left: AtomicBool,
}

impl Held {
    pub(super) fn new(node: Node, created: Created, id: OwnerId, loss: &LossReporter) -> Arc<Self> {
        let held = Arc::new(Self {
            node,
            created,
            id,
            given_up: Signal::new(),
            removed: AtomicBool::new(false),
            left: AtomicBool::new(false),
        });
        held.node.session.remember(id, loss);
        tokio::spawn(Arc::clone(&held).watch(loss.clone()));
        held
    }

    /// Why the lock is lost, if that is known.
    pub(super) fn loss(&self) -> Option<LockError> {
        if self.node.session.has_ended() {
            Some(lost(ENDED))
        } else if self.removed.load(Ordering::Acquire) {
            Some(lost(REMOVED))
        } else {
            None
        }
    }

    /// The node's path.
    pub(super) fn path(&self) -> String {
        self.node.lock.child(&self.created.name)
    }

    pub(super) fn was_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// From here on its end is nobody's loss.
    pub(super) fn give_up(&self) {
        self.given_up.set(());
        self.node.session.forget(self.id);
    }

    /// After it was given up for a new acquisition: `gone` says whether its node is gone. If it is
    /// not, that is seen to.
    pub(super) fn leave(&self, gone: bool) {
        if !self.left.swap(true, Ordering::AcqRel) && !gone && self.loss().is_none() {
            self.sweep_in_the_background();
        }
    }

    pub(super) async fn release(&self) -> Result<(), LockError> {
        self.give_up();
        if let Some(loss) = self.loss() {
            return Err(loss);
        }
        let limit = self.node.link.settings.connect_timeout;
        // In an outage others wait for this in turn, and who does not wait has one such time in all.
        if !self.node.session.connects_within(limit / 2).await {
            if let Some(loss) = self.loss() {
                return Err(loss);
            }
            self.sweep_in_the_background();
            let error = lock_error(Error::ConnectionLoss);
            return Err(self.node.link.about(error));
        }
        let removing = async {
            let mut asked = false;
            loop {
                match self.node.remove(&self.created, &mut asked).await {
                    // It was carried out, or never will be.
                    Err(error) if self.node.session.note(&error) == Fault::Interrupted => {}
                    removed => return removed,
                }
            }
        };
        let error = match tokio::time::timeout(limit, removing).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => return Err(lost(REMOVED)),
            Ok(Err(error)) => match self.node.session.note(&error) {
                Fault::Ended => return Err(lost(ENDED)),
                _ => self.node.link.about(lock_error(error)),
            },
            Err(_) => self.node.link.about(unanswered()),
        };
        self.sweep_in_the_background();
        Err(error)
    }

    fn sweep_in_the_background(&self) {
        let created = Some(self.created.clone());
        self.node.clone().sweep_in_the_background(created);
    }

    /// Has the server tell when the node is gone.
    async fn watch(self: Arc<Self>, loss: LossReporter) {
        let watching = async {
            tokio::time::sleep(BEFORE_WATCHING).await;
            loop {
                match self.look().await {
                    Ok(true) => {}
                    Ok(false) => return true,
                    Err(error) => match self.node.session.note(&error) {
                        Fault::Interrupted => {}
                        Fault::Busy => tokio::time::sleep(PAUSE).await,
                        // By its deadline alone, then.
                        _ => return false,
                    },
                }
            }
        };
        let watching = async {
            match first_of(watching, self.missed_by_another()).await {
                First::Left(removed) => removed.then_some(REMOVED),
                First::Right(()) => Some(GONE),
            }
        };
        if let First::Right(Some(why)) = first_of(self.given_up.wait(), watching).await {
            self.was_removed();
            self.node.session.forget(self.id);
            loss.report(why);
        }
    }

    /// Resolves when the session has no connection and another one finds that the node is gone: so is
    /// the session then, or all data of the ensemble. A server that has lost its data hangs up on
    /// clients that have seen more than it has.
    async fn missed_by_another(&self) {
        let mut pause = BEFORE_LOOKING;
        loop {
            self.node.session.out_for(pause).await;
            if let Ok(other) = self.node.link.beside(&self.node.session).await {
                let seen = self.node.is_seen_by(&other, &self.created).await;
                if let Ok(false) = seen {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits until something happens to the node, and answers whether it is there nonetheless.
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
