//! Standing in the queue of a lock: with a node, until nobody is before it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zookeeper_client::{Error, EventType};

use super::error::fault;
use super::held::Held;
use super::node::{Created, Node};
use super::path::{is_beyond_the_last, predecessor};
use crate::clock::Timestamp;
use crate::future::join;
use crate::provider::{AcquireRequest, Grant};

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

/// A place in the queue.
struct Place {
    created: Created,
    /// All children of the lock's node, if they were just listed, and when that was asked for.
    listed: Option<(Vec<String>, Timestamp)>,
}

/// What a list of the children says about a place.
enum QueuePosition {
    /// It is the first, in a list that was asked for at that moment.
    First(Timestamp),
    /// This path is that of the node before it.
    Behind(String),
    Unknown,
    Gone,
}

impl Waiting<'_> {
    /// Queues, and waits until the lock is its own. `old` is given up as soon as the owner queues.
    pub(super) async fn run(self, old: Option<&Held>) -> Result<Grant, Miss> {
        // A node of another session is not this one's to remove, and its name proves nothing.
        let session = &self.node.session;
        let mut old =
            old.filter(|old| Arc::ptr_eq(&old.node.session, session) && old.loss().is_none());
        loop {
            let mut place = self.queue(old.take()).await?;
            // Until somebody else removes the node.
            loop {
                match self.position(&mut place) {
                    QueuePosition::First(sent_at) => return Ok(self.grant(place.created, sent_at)),
                    QueuePosition::Behind(path) => self.wait(&path).await?,
                    QueuePosition::Unknown => {}
                    QueuePosition::Gone => break,
                }
                if !self.ask(&mut place).await? {
                    break;
                }
            }
        }
    }

    /// Creates the node.
    async fn queue(&self, old: Option<&Held>) -> Result<Place, Miss> {
        // An earlier node is another's to remove, or gone.
        self.known.set(None);
        self.request.report_unanswered(true);
        let instead_of = old.map(|old| &old.created);
        let queued = self.node.create(instead_of).await.map_err(Miss::Failed)?;
        if let Some(old) = old {
            // Or it would wait for itself.
            old.release_unconfirmed(queued.old_is_gone);
        }
        self.known.set(Some(queued.created.clone()));
        if is_beyond_the_last(&queued.created.name) {
            return Err(Miss::NoNumber);
        }
        Ok(Place {
            created: queued.created,
            listed: queued.children.map(|list| (list, queued.sent_at)),
        })
    }

    /// Says who is before it, by the list, which counts once.
    fn position(&self, place: &mut Place) -> QueuePosition {
        let Some((list, sent_at)) = place.listed.take() else {
            return QueuePosition::Unknown;
        };
        match predecessor(&list, &place.created.name) {
            Some(None) => QueuePosition::First(sent_at),
            Some(Some(before)) => QueuePosition::Behind(self.node.lock.child(before)),
            None => QueuePosition::Gone,
        }
    }

    /// Asks who is first now, and, in case it is this one, whether the session lives, and whether
    /// the node is not another one of its name. False if the node is gone.
    async fn ask(&self, place: &mut Place) -> Result<bool, Miss> {
        let (node, session) = (self.node, &self.node.session);
        let path = node.lock.child(&place.created.name);
        let asked_at = Timestamp::now();
        self.request.report_unanswered(true);
        let reading = async {
            let listing = session.client.list_children(node.lock.node());
            join(listing, session.client.check_stat(&path)).await
        };
        match join(session.confirm(&path), reading).await {
            (Ok(false), _) | (_, (Err(Error::NoNode), _) | (_, Ok(None))) => return Ok(false),
            (Ok(true), (Ok(list), Ok(Some(stat)))) => {
                if !node.is_same(&place.created, &stat) {
                    return Ok(false);
                }
                place.created.seen_at = asked_at;
                place.listed = Some((list, asked_at));
            }
            (Err(error), _) | (_, (Err(error), _) | (_, Err(error))) => go_on_after(error)?,
        }
        Ok(true)
    }

    /// Waits until the node before it is gone, or may be, if the request waits. What this process
    /// has left behind is awaited in any case.
    async fn wait(&self, path: &str) -> Result<(), Miss> {
        let client = &self.node.session.client;
        self.request.report_unanswered(true);
        match client.get_and_watch_data(path).await {
            Ok((_, stat, watcher)) => {
                self.is_seen_before(path, stat.ephemeral_owner)?;
                match watcher.changed().await.event_type {
                    EventType::Session => Err(Miss::Ended),
                    _ => Ok(()),
                }
            }
            // Everybody may ask whether it exists. But servers do not tell of its end those who may
            // not read it.
            Err(Error::NoAuth) => {
                match client.check_stat(path).await {
                    Ok(Some(stat)) => self.is_seen_before(path, stat.ephemeral_owner)?,
                    Ok(None) | Err(Error::NoNode) => return Ok(()),
                    Err(error) => return go_on_after(error),
                }
                tokio::time::sleep(HIDDEN).await;
                Ok(())
            }
            Err(Error::NoNode) => Ok(()),
            Err(error) => go_on_after(error),
        }
    }

    /// Takes note that a node of this session stands before.
    fn is_seen_before(&self, path: &str, session: i64) -> Result<(), Miss> {
        if NO_LOCKS.contains(&session) {
            return Err(Miss::NoLock(path.to_owned()));
        }
        self.request.report_unanswered(false);
        if !self.node.pool.is_own(session) {
            if !self.request.waits() {
                return Err(Miss::Held);
            }
            self.request.report_contention();
        }
        Ok(())
    }

    fn grant(&self, created: Created, sent_at: Timestamp) -> Grant {
        self.request.report_trouble(None);
        let (node, session) = (self.node, &self.node.session);
        let token = node.pool.transactions.token(created.czxid);
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

/// Goes on after the loss of a connection: the client makes it anew, and the session lives on.
fn go_on_after(error: Error) -> Result<(), Miss> {
    match fault(&error).is_uncertain() {
        true => Ok(()),
        false => Err(Miss::Failed(error)),
    }
}
