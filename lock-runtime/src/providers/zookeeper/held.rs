//! A lock that is held: the provider's own part of a grant, and the watch over its nodes.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zookeeper_client::{Error, EventType};

use super::node::{Created, LONGEST_PAUSE, Node, PAUSE};
use crate::LockError;
use crate::background;
use crate::future::{First, select};
use crate::provider::{Grant, LockKind, LossReporter, OwnerId};
use crate::providers::kit::backoff::Pauses;
use crate::providers::kit::error::lost;
use crate::providers::kit::fault::Fault;
use crate::signal::Signal;

/// A lock held for less than this is not looked at.
const BEFORE_WATCHING: Duration = Duration::from_millis(20);
/// What stands in a node that holds a permit. Waiters of the .NET library look for it: whoever
/// queues behind it is woken to wait for a permit.
pub(super) const ACQUIRED: &[u8] = b"ACQUIRED";
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
    /// Somebody else has removed a node.
    removed: AtomicBool,
    /// The removal of its nodes is done, or has been seen to.
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
        held.node.pool.holds(held.created.czxid);
        held.node.session.hold(id, loss);
        if held.is_permit() {
            held.say_acquired();
        }
        for place in 0..held.created.names.len() {
            background::spawn_beside(Arc::clone(&held).watch(place, loss.clone()));
        }
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

    /// Returns the path of one of its nodes.
    pub(super) fn path(&self) -> String {
        let first = self.created.names.first();
        self.node.lock.child(first.map_or("", String::as_str))
    }

    fn is_permit(&self) -> bool {
        self.node.lock.mode().kind() == LockKind::Semaphore
    }

    /// Writes into its nodes that they hold permits. Nobody waits for the answers: what is sent
    /// later is carried out later, and the watch looks whether it is there.
    fn say_acquired(&self) {
        if self.node.session.is_connected() {
            for path in self.node.paths(&self.created) {
                drop(self.node.session.client.set_data(&path, ACQUIRED, None));
            }
        }
    }

    /// Takes note that somebody else has removed a node. Several permits are one lock, so the
    /// others are given back.
    pub(super) fn was_removed(&self) {
        let is_known = self.removed.swap(true, Ordering::AcqRel);
        if !is_known && self.created.names.len() > 1 {
            self.release_unconfirmed_later();
        }
    }

    /// Makes its end nobody's loss from here on. Says whether it was held until now.
    pub(super) fn let_go(&self) -> bool {
        let was_held = self.let_go.set(());
        self.node.session.let_go(self.id);
        self.node.pool.holds_no_more(self.created.czxid);
        was_held
    }

    /// Sees to the removal of the nodes, if they are not gone, after it was let go for a new
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

    /// Has the server tell when one of the nodes is gone, and reports the loss. Whoever watches the
    /// first one has another session tell, too, if this one has no connection.
    async fn watch(self: Arc<Self>, place: usize, loss: LossReporter) {
        let path = self.node.lock.child(&self.created.names[place]);
        let watching = async {
            tokio::time::sleep(BEFORE_WATCHING).await;
            loop {
                match self.look(&path).await {
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
        let from_another = async {
            match place {
                0 => self.missed_by_another().await,
                _ => pending().await,
            }
        };
        let watching = async {
            match select(watching, from_another).await {
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

    /// Waits until the session has no connection and another one finds that a node is gone: so is
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

    /// Waits until something happens to a node, and says whether it is there nonetheless.
    async fn look(&self, path: &str) -> Result<bool, Error> {
        let client = &self.node.session.client;
        match client.get_and_watch_data(path).await {
            Ok((data, stat, watcher)) if self.node.is_same(&self.created, &stat) => {
                // The request that was to write it was lost, or somebody else wrote.
                if self.is_permit() && data != ACQUIRED && self.let_go.get().is_none() {
                    drop(client.set_data(path, ACQUIRED, None));
                }
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
