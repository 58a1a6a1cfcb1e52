//! Acquiring: queue with a node, wait for the one before it to go, and take the node back if it
//! comes to nothing.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zookeeper_client::{Error, EventType};

use super::error::{Fault, lock_error, unanswered};
use super::held::Held;
use super::link::Link;
use super::node::{Created, Node};
use super::path::{LockPath, predecessor};
use super::session::{Room, Session};
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant};
use crate::race::{First, both, first_of};
use crate::{LockError, LockErrorKind};

/// Between two attempts of a waiter to reach the ensemble.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at a node that may not be read.
const HIDDEN: Duration = Duration::from_millis(250);

/// The owners that the server shows of a node that goes with no session: none, or a container.
const NO_LOCKS: [i64; 2] = [0, i64::MIN];

/// One acquisition under way.
pub(super) struct Acquisition<'a> {
    link: &'a Arc<Link>,
    request: &'a AcquireRequest,
    lock: LockPath,
    owner: String,
}

/// Why a session brought no grant.
enum Miss {
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
    Failed(Error),
}

impl<'a> Acquisition<'a> {
    pub(super) fn new(link: &'a Arc<Link>, request: &'a AcquireRequest) -> Self {
        Self {
            link,
            request,
            lock: link.path(request.name()),
            owner: link.owner(request.owner()),
        }
    }

    /// `old` is given up as soon as the owner queues.
    pub(super) async fn run(self, mut old: Option<&Held>) -> Result<Grant, LockError> {
        let by = self.link.answers_by();
        let mut outage = None;
        loop {
            self.request.report_unanswered(true);
            let room = async {
                match old {
                    // On its session it need not wait for the old one's node to go.
                    Some(old) if !old.node.session.has_ended() => Ok(Arc::clone(&old.node.room)),
                    _ => self.link.room(&self.lock).await,
                }
            };
            let asked = first_of(room, self.given_up(by)).await;
            let error = match asked {
                First::Right(Miss::Unanswered) => return Err(self.link.about(unanswered())),
                First::Right(_) => return Err(LockErrorKind::Contended.into()),
                First::Left(Err(error)) => error,
                First::Left(Ok(room)) => {
                    outage = None;
                    match self.on(room, old.take(), by).await {
                        Ok(grant) => return Ok(grant),
                        Err(None) => self.link.about(lock_error(Error::SessionExpired)),
                        Err(Some(error)) => return Err(error),
                    }
                }
            };
            // A session that ended while nobody looked is not the caller's concern. An ensemble
            // that is gone is, after a while.
            let since = *outage.get_or_insert_with(Timestamp::now);
            let until = match self.request.waits() {
                true => since + self.link.settings.connect_timeout,
                false => by,
            };
            if !error.is_retryable() || until.has_passed() {
                return Err(error);
            }
            self.request.report_trouble(Some(error));
            tokio::time::sleep(PAUSE.min(until.remaining())).await;
        }
    }

    /// Queues on this session; `Err(None)` if it ended.
    async fn on(
        &self,
        room: Arc<Room>,
        old: Option<&Held>,
        by: Timestamp,
    ) -> Result<Grant, Option<LockError>> {
        let session = &Arc::clone(room.session());
        let node = Node {
            link: Arc::clone(self.link),
            session: Arc::clone(session),
            room,
            lock: self.lock.clone(),
            owner: self.owner.clone(),
        };
        let known = Mutex::new(None);
        let ended = first_of(session.ended(), self.stranded(&node, &known));
        let taking = async {
            match first_of(self.take(&node, old, &known), ended).await {
                First::Left(outcome) => outcome,
                First::Right(First::Left(())) => Err(Miss::Ended),
                First::Right(First::Right(())) => Err(Miss::Stranded),
            }
        };
        let given_up = first_of(self.given_up(by), self.report_trouble(session));
        let miss = match first_of(taking, given_up).await {
            First::Left(Ok(grant)) => return Ok(grant),
            First::Left(Err(miss)) => miss,
            First::Right(First::Left(miss)) => miss,
            First::Right(First::Right(never)) => match never {},
        };
        let created = known.into_inner().unwrap_or_else(PoisonError::into_inner);
        let error = match miss {
            Miss::Held | Miss::Abandoned => {
                self.leave(node, created, by).await;
                LockErrorKind::Contended.into()
            }
            Miss::NoLock(path) => {
                self.leave(node, created, by).await;
                LockError::new(LockErrorKind::InvalidConfig).with_detail(format!(
                    "the node `{path}` stands before all locks and is not ephemeral; no lock is, \
                     and it would hold for ever"
                ))
            }
            Miss::Ended => return Err(None),
            Miss::Stranded => {
                node.sweep_in_the_background(created);
                return Err(None);
            }
            Miss::Unanswered => {
                node.sweep_in_the_background(created);
                self.link.about(unanswered())
            }
            Miss::Failed(error) => {
                if session.note(&error) == Fault::Ended {
                    return Err(None);
                }
                // If the node was refused there is none.
                if created.is_some() {
                    self.leave(node, created, by).await;
                }
                self.link.about(lock_error(error))
            }
        };
        Err(Some(error))
    }

    /// Resolves when the session has had no connection for long, another one has, and nothing is lost
    /// by going over: there is no node yet, or it is gone.
    async fn stranded(&self, node: &Node, known: &Mutex<Option<Created>>) {
        let pause = self.link.long_outage();
        loop {
            node.session.out_for(pause).await;
            if let Ok(other) = self.link.beside(&node.session).await {
                let created = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let Some(created) = created else {
                    return;
                };
                if let Ok(false) = node.is_seen_by(&other, &created).await {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Resolves when the request is abandoned, and for one that does not wait when its time is over.
    async fn given_up(&self, by: Timestamp) -> Miss {
        if self.request.waits() {
            self.request.abandoned().await;
            return Miss::Abandoned;
        }
        let limit = tokio::time::sleep(by.remaining());
        match first_of(self.request.abandoned(), limit).await {
            First::Left(()) => Miss::Abandoned,
            First::Right(()) => Miss::Unanswered,
        }
    }

    async fn take(
        &self,
        node: &Node,
        mut old: Option<&Held>,
        known: &Mutex<Option<Created>>,
    ) -> Result<Grant, Miss> {
        let session = &node.session;
        // A node of another session is not this one's to remove, and its name proves nothing.
        old = old.filter(|old| Arc::ptr_eq(&old.node.session, session) && old.loss().is_none());
        loop {
            // What there was is another's to remove, or gone.
            set(known, None);
            self.request.report_unanswered(true);
            let old = old.take();
            let instead_of = old.map(|old| &old.created);
            let queued = node.create(instead_of).await.map_err(Miss::Failed)?;
            if let Some(old) = old {
                // Or it would wait for itself.
                old.leave(queued.old_is_gone);
            }
            let mut created = queued.created;
            set(known, Some(created.clone()));
            let mut sent_at = Some(queued.sent_at);
            let mut children = queued.children;
            // Until somebody else removes the node.
            loop {
                let standing = children.take();
                let standing = standing
                    .as_deref()
                    .map(|list| predecessor(list, &created.name));
                match (standing, sent_at.take()) {
                    (Some(Some(None)), Some(sent_at)) => {
                        return Ok(self.grant(node, created, sent_at));
                    }
                    (Some(Some(None)) | None, _) => {}
                    (Some(Some(Some(before))), _) => {
                        self.until_gone(session, &self.lock.child(before)).await?;
                    }
                    (Some(None), _) => break,
                }
                // Who is first now, and, in case it is this one, whether the session lives, and
                // whether the node is not another one of its name.
                let path = self.lock.child(&created.name);
                let asked_at = Timestamp::now();
                self.request.report_unanswered(true);
                let reading = async {
                    let listing = session.client.list_children(self.lock.node());
                    both(listing, session.client.check_stat(&path)).await
                };
                match both(session.confirm(&path), reading).await {
                    (Ok(false), _) | (_, (Err(Error::NoNode), _) | (_, Ok(None))) => break,
                    (Ok(true), (Ok(list), Ok(Some(stat)))) => {
                        if !node.is_same(&created, &stat) {
                            break;
                        }
                        created.seen_at = asked_at;
                        children = Some(list);
                        sent_at = Some(asked_at);
                    }
                    (Err(error), _) | (_, (Err(error), _) | (_, Err(error))) => {
                        go_on_after(error)?;
                    }
                }
            }
        }
    }

    fn grant(&self, node: &Node, created: Created, sent_at: Timestamp) -> Grant {
        self.request.report_trouble(None);
        let token = node.link.token(created.czxid);
        let loss = self.request.loss_reporter();
        let held = Held::new(node.clone(), created, self.request.owner(), &loss);
        let grant = Grant::new(self.request, sent_at)
            .with_lease(node.session.validity())
            .with_server_lease(node.session.timeout())
            .with_state(held);
        match token {
            Some(token) => grant.with_token(token),
            None => grant,
        }
    }

    /// Takes the node back before anybody is told, if the ensemble answers in time; else afterwards.
    async fn leave(&self, node: Node, created: Option<Created>, by: Timestamp) {
        if !node.session.is_connected() {
            return node.sweep_in_the_background(created);
        }
        self.request.report_unanswered(true);
        let removing = async {
            match &created {
                Some(created) => node.remove(created, &mut false).await.map(drop),
                None => node.sweep(None).await,
            }
        };
        let limit = match self.request.waits() {
            true => self.link.settings.connect_timeout,
            false => by.remaining(),
        };
        match tokio::time::timeout(limit, removing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if node.session.note(&error) == Fault::Ended => {}
            _ => node.sweep_in_the_background(created),
        }
    }

    /// Waits until the node is gone, or may be, if the request waits; what this process has left
    /// behind is awaited in any case.
    async fn until_gone(&self, session: &Session, path: &str) -> Result<(), Miss> {
        self.request.report_unanswered(true);
        match session.client.get_and_watch_data(path).await {
            Ok((_, stat, watcher)) => {
                self.is_seen_before(path, stat.ephemeral_owner)?;
                match watcher.changed().await.event_type {
                    EventType::Session => Err(Miss::Ended),
                    _ => Ok(()),
                }
            }
            // Whether it exists may be asked by everybody, and servers tell nobody of its end who may
            // not read it.
            Err(Error::NoAuth) => {
                match session.client.check_stat(path).await {
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

    /// A node of this session stands before.
    fn is_seen_before(&self, path: &str, session: i64) -> Result<(), Miss> {
        if NO_LOCKS.contains(&session) {
            return Err(Miss::NoLock(path.to_owned()));
        }
        self.request.report_unanswered(false);
        if !self.link.is_own(session) {
            if !self.request.waits() {
                return Err(Miss::Held);
            }
            self.request.report_contention();
        }
        Ok(())
    }

    /// Says while the connection is gone that it is.
    async fn report_trouble(&self, session: &Session) -> Infallible {
        let mut watcher = session.client.state_watcher();
        loop {
            let trouble = (!session.is_connected())
                .then(|| self.link.about(lock_error(Error::ConnectionLoss)));
            self.request.report_trouble(trouble);
            watcher.changed().await;
        }
    }
}

fn set(known: &Mutex<Option<Created>>, created: Option<Created>) {
    *known.lock().unwrap_or_else(PoisonError::into_inner) = created;
}

/// A connection that is lost is made anew by the client, and the session lives on.
fn go_on_after(error: Error) -> Result<(), Miss> {
    match super::error::fault(&error) {
        Fault::Interrupted => Ok(()),
        _ => Err(Miss::Failed(error)),
    }
}
