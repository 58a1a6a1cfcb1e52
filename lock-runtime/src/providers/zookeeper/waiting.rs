//! Standing in the queue of a lock, until it is one's own.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zookeeper_client::{Error, EventType, OneshotWatcher, Stat};

use super::error::fault;
use super::held::{ACQUIRED, Held};
use super::node::{Created, Node};
use super::queue::{Standing, before, is_beyond_the_last, places, standing};
use crate::clock::Timestamp;
use crate::future::join;
use crate::provider::{AcquireRequest, Grant, LockKind, LockMode};

/// The pause between two looks at a node that may not be read.
const HIDDEN: Duration = Duration::from_millis(250);

/// The owners that the server shows of a node that goes with no session: none, or a container.
const NO_LOCKS: [i64; 2] = [0, i64::MIN];

/// Why a session brought no grant.
pub(super) enum Miss {
    /// Somebody else holds the lock, and the request does not wait.
    Held,
    /// Nobody wants it any more.
    Abandoned,
    /// The session has ended.
    Ended,
    /// It has no connection, and another one has.
    Stranded,
    Unanswered,
    /// What stands before it is a node that no lock has.
    NoLock(String),
    /// The lock's node has used up its numbers.
    NoNumber,
    Failed(Error),
}

/// The node of an acquisition, as far as it is known, for what runs beside the wait.
#[derive(Default)]
pub(super) struct Known(Mutex<Option<Created>>);

impl Known {
    pub(super) fn get(&self) -> Option<Created> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, created: Option<Created>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = created;
    }
}

/// One acquisition on one session.
pub(super) struct Waiting<'a> {
    pub(super) request: &'a AcquireRequest,
    pub(super) node: &'a Node,
    pub(super) known: &'a Known,
}

/// What a wait has come to.
#[derive(PartialEq, Eq)]
enum Waited {
    /// Something has changed, or may have.
    ForChange,
    /// The node before has its permit, by a greater limit, and will tell no more.
    ForNothing,
}

/// A place in the queue.
struct Place {
    created: Created,
    /// All children of the lock's node, if they were just listed, and when that was asked for.
    listed: Option<(Vec<String>, Timestamp)>,
}

impl Waiting<'_> {
    /// Queues, and waits until the lock is its own. `old` is given up as soon as the owner queues.
    pub(super) async fn run(self, old: Option<&Held>) -> Result<Grant, Miss> {
        let session = &self.node.session;
        let mut old = old.filter(|old| {
            let is_here = Arc::ptr_eq(&old.node.session, session) && old.loss().is_none();
            if !is_here {
                // A node of another session is not this one's to remove, and its name proves
                // nothing. It must not be waited for.
                old.release_unconfirmed(false);
            }
            is_here
        });
        loop {
            let mut place = self.queue(old.take()).await?;
            // Until somebody else removes a node.
            loop {
                if let Some((list, sent_at)) = place.listed.take() {
                    let own = &place.created.names;
                    match standing(self.mode(), &list, own) {
                        Standing::Holds => return Ok(self.grant(place.created, sent_at)),
                        Standing::Behind(nearest) => {
                            if self.wait(nearest).await? == Waited::ForNothing {
                                let before = before(self.mode(), &list, own);
                                self.wait_for_one_of(&before, own).await?;
                            }
                        }
                        Standing::Among(before) => {
                            self.wait_for_one_of(&before, own).await?;
                        }
                        Standing::Gone => break,
                    }
                }
                if !self.ask(&mut place).await? {
                    break;
                }
            }
            if places(self.mode()) > 1 {
                // What is left of them is of no use.
                self.node
                    .clone()
                    .release_unconfirmed_later(Some(place.created));
            }
        }
    }

    fn mode(&self) -> LockMode {
        self.node.lock.mode()
    }

    /// Creates the nodes.
    async fn queue(&self, old: Option<&Held>) -> Result<Place, Miss> {
        // Earlier nodes are gone, or have been seen to.
        self.known.set(None);
        self.request.report_unanswered(true);
        let instead_of = old.map(|old| &old.created);
        let queued = self.node.create(instead_of).await.map_err(Miss::Failed)?;
        if let Some(old) = old {
            // Or it would wait for itself.
            old.release_unconfirmed(queued.old_is_gone);
        }
        self.known.set(Some(queued.created.clone()));
        let kind = self.mode().kind();
        let mut names = queued.created.names.iter();
        if names.any(|name| is_beyond_the_last(kind, name)) {
            return Err(Miss::NoNumber);
        }
        Ok(Place {
            created: queued.created,
            listed: queued.children.map(|list| (list, queued.sent_at)),
        })
    }

    /// Asks who queues now, and, in case the lock is this one's, whether the session lives, and
    /// whether the nodes are not others of their names. False if one is gone.
    async fn ask(&self, place: &mut Place) -> Result<bool, Miss> {
        let (node, session) = (self.node, &self.node.session);
        let Some(first) = place.created.names.first() else {
            return Ok(false);
        };
        let path = node.lock.child(first);
        let asked_at = Timestamp::now();
        self.request.report_unanswered(true);
        let reading = async {
            let listing = session.client.list_children(node.lock.node());
            join(listing, node.are_there(&place.created)).await
        };
        match join(session.confirm(&path), reading).await {
            (Ok(false), _) | (_, (Err(Error::NoNode), _)) => return Ok(false),
            (Ok(true), (Ok(list), Ok(are_there))) => {
                if !are_there {
                    return Ok(false);
                }
                place.created.seen_at = asked_at;
                place.listed = Some((list, asked_at));
            }
            (Err(error), _) | (_, (Err(error), _) | (_, Err(error))) => {
                go_on_after(error)?;
            }
        }
        Ok(true)
    }

    /// Waits until the node before it is gone, or may be, or gets a permit, if the request waits.
    /// What this process has left behind is awaited in any case.
    async fn wait(&self, before: &str) -> Result<Waited, Miss> {
        let client = &self.node.session.client;
        let path = &self.node.lock.child(before);
        self.request.report_unanswered(true);
        match client.get_and_watch_data(path).await {
            Ok((data, stat, watcher)) => {
                self.is_seen_before(path, &stat)?;
                if self.mode().kind() == LockKind::Semaphore && data == ACQUIRED {
                    return Ok(Waited::ForNothing);
                }
                changed(watcher).await
            }
            // Everybody may ask whether it exists. But servers do not tell of its end those who may
            // not read it.
            Err(Error::NoAuth) => {
                match client.check_stat(path).await {
                    Ok(Some(stat)) => self.is_seen_before(path, &stat)?,
                    Ok(None) | Err(Error::NoNode) => return Ok(Waited::ForChange),
                    Err(error) => return go_on_after(error),
                }
                tokio::time::sleep(HIDDEN).await;
                Ok(Waited::ForChange)
            }
            Err(Error::NoNode) => Ok(Waited::ForChange),
            Err(error) => go_on_after(error),
        }
    }

    /// Waits until one of those is gone who are before it and may all have permits, if the request
    /// waits. What this process has left behind is awaited in any case.
    async fn wait_for_one_of(&self, before: &[&str], own: &[String]) -> Result<Waited, Miss> {
        let (node, client) = (self.node, &self.node.session.client);
        let mut is_known = false;
        loop {
            self.request.report_unanswered(true);
            let listing = client.list_and_watch_children(node.lock.node());
            if !std::mem::replace(&mut is_known, true) {
                self.look_at(before).await?;
            }
            let (children, watcher) = match listing.await {
                Ok(listed) => listed,
                Err(Error::NoNode) => return Ok(Waited::ForChange),
                Err(error) => return go_on_after(error),
            };
            self.request.report_unanswered(false);
            let children: HashSet<_> = children.iter().map(String::as_str).collect();
            let own = own.iter().map(String::as_str);
            if !before
                .iter()
                .copied()
                .chain(own)
                .all(|child| children.contains(child))
            {
                return Ok(Waited::ForChange);
            }
            // Whoever comes changes the list too, and is of no concern.
            changed(watcher).await?;
        }
    }

    /// Finds out whether those who are before it leave too few permits, but for what this process
    /// has left behind.
    async fn look_at(&self, before: &[&str]) -> Result<(), Miss> {
        let LockMode::Permits { limit, take } = self.mode() else {
            return Ok(());
        };
        let client = &self.node.session.client;
        let looks = before.iter().map(|child| {
            let path = self.node.lock.child(child);
            let stat = client.check_stat(&path);
            (path, stat)
        });
        let looks: Vec<_> = looks.collect();
        let mut taken = take.get();
        for (path, stat) in looks {
            match stat.await {
                Ok(Some(stat)) if NO_LOCKS.contains(&stat.ephemeral_owner) => {
                    return Err(Miss::NoLock(path));
                }
                Ok(Some(stat)) if self.node.pool.was_left_behind(&stat) => {}
                Ok(Some(_)) => taken = taken.saturating_add(1),
                Ok(None) | Err(Error::NoNode) => {}
                Err(error) => return go_on_after(error).map(drop),
            }
        }
        match taken > limit.get() {
            true => self.is_contended(),
            false => Ok(()),
        }
    }

    /// Takes note that a node stands before.
    fn is_seen_before(&self, path: &str, stat: &Stat) -> Result<(), Miss> {
        if NO_LOCKS.contains(&stat.ephemeral_owner) {
            return Err(Miss::NoLock(path.to_owned()));
        }
        self.request.report_unanswered(false);
        if self.node.pool.was_left_behind(stat) {
            return Ok(());
        }
        self.is_contended()
    }

    /// Takes note that somebody else has the lock.
    fn is_contended(&self) -> Result<(), Miss> {
        if !self.request.waits() {
            return Err(Miss::Held);
        }
        self.request.report_contention();
        Ok(())
    }

    fn grant(&self, created: Created, sent_at: Timestamp) -> Grant {
        self.request.report_trouble(None);
        let (node, session) = (self.node, &self.node.session);
        // Of several valid permits, no number tells which is stale.
        let token = match self.mode().kind() {
            LockKind::Semaphore => None,
            _ => node.pool.transactions.token(created.czxid),
        };
        let loss = self.request.loss_reporter();
        let held = Held::new(node.clone(), created, self.request.owner(), &loss);
        let grant = Grant::new(self.request, sent_at)
            .with_lease(session.validity())
            .with_server_lease(session.timeout())
            .with_state(held);
        match token {
            Some(token) => grant.with_token(token),
            None => grant,
        }
    }
}

/// Waits until the server tells of a change.
async fn changed(watcher: OneshotWatcher) -> Result<Waited, Miss> {
    match watcher.changed().await.event_type {
        EventType::Session => Err(Miss::Ended),
        _ => Ok(Waited::ForChange),
    }
}

/// Goes on after the loss of a connection: the client makes it anew, and the session lives on.
fn go_on_after(error: Error) -> Result<Waited, Miss> {
    match fault(&error).is_uncertain() {
        true => Ok(Waited::ForChange),
        false => Err(Miss::Failed(error)),
    }
}
