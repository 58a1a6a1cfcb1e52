//! The nodes by which one owner holds a lock or waits for it: finding and removing them. It is one,
//! or, of several permits of a semaphore, as many.

use std::sync::Arc;
use std::time::Duration;

use zookeeper_client::{Error, Stat};

use super::error::fault;
use super::path::LockPath;
use super::queue::{sequence, word};
use super::session::{Room, Session};
use super::session_pool::SessionPool;
use crate::clock::Timestamp;
use crate::future::{BoxFuture, join, join_all};
use crate::providers::kit::fault::Fault;
use crate::sending::unsent;

/// The pause after an error of the server's; in the background doubled from one to the next.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A node that was seen so lately is removed by its name, without another look at whose it is.
const LATELY: Duration = Duration::from_millis(100);

/// Where one owner stands on one session.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) pool: Arc<SessionPool>,
    pub(super) session: Arc<Session>,
    /// It is kept for as long as the nodes may be there.
    pub(super) room: Arc<Room>,
    pub(super) lock: LockPath,
    /// What stands in the nodes, and in no other ones, until they hold permits.
    pub(super) owner: String,
}

/// Nodes that exist.
#[derive(Debug, Clone)]
pub(super) struct Created {
    /// Their names below the lock's node, in the order of their numbers, which follow each other.
    pub(super) names: Vec<String>,
    /// The transaction that created them.
    pub(super) czxid: i64,
    /// A moment before the last request was sent that found them there.
    pub(super) seen_at: Timestamp,
}

impl Node {
    /// Finds the nodes of this owner and this session, if there are any, of the latest transaction
    /// that created some. Whatever was asked before on this session has been carried out by then,
    /// or never will be. A server that takes a session over sees to that (`SessionMovedException`),
    /// and `sync` brings it up to date.
    ///
    /// A node of the same owner and another session belongs to nobody, and ends with that session.
    pub(super) async fn find(&self) -> Result<Option<Created>, Error> {
        let client = &self.session.client;
        let seen_at = Timestamp::now();
        let synced = client.sync(self.lock.node());
        let children = client.list_children(self.lock.node());
        synced.await?;
        let children = match children.await {
            Ok(children) => children,
            Err(Error::NoNode) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mode = self.lock.mode();
        let asked: Vec<_> = children
            .into_iter()
            .filter(|name| name.starts_with(word(mode)) && sequence(mode.kind(), name).is_some())
            .map(|name| {
                let data = client.get_data(&self.lock.child(&name));
                (name, data)
            })
            .collect();
        let mut found: Option<Created> = None;
        for (name, data) in asked {
            let czxid = match data.await {
                Ok((data, stat)) if self.is_own(&data, &stat) => stat.czxid,
                // It is another owner's, and may be gone by now, or hidden.
                Ok(_) | Err(Error::NoNode | Error::NoAuth) => continue,
                Err(error) => return Err(error),
            };
            match &mut found {
                Some(latest) if latest.czxid > czxid => {}
                Some(latest) if latest.czxid == czxid => latest.names.push(name),
                _ => {
                    let names = vec![name];
                    found = Some(Created {
                        names,
                        czxid,
                        seen_at,
                    });
                }
            }
        }
        if let Some(found) = &mut found {
            found.names.sort_unstable();
        }
        Ok(found)
    }

    /// Finds the nodes, and tries until the server can tell, or the session has ended.
    pub(super) async fn find_patiently(&self) -> Result<Option<Created>, Error> {
        loop {
            let error = match self.find().await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            match fault(&error) {
                // What is asked while there is no connection waits for one.
                Fault::Interrupted | Fault::Unanswered => {}
                Fault::Ended => return Err(error),
                Fault::Busy | Fault::Refused => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn is_own(&self, data: &[u8], stat: &Stat) -> bool {
        data == self.owner.as_bytes() && stat.ephemeral_owner == self.session.id()
    }

    /// Says whether what stands at the path of one of the nodes is that node. What it holds proves
    /// nothing: anybody may have written into it.
    pub(super) fn is_same(&self, created: &Created, stat: &Stat) -> bool {
        stat.czxid == created.czxid && stat.ephemeral_owner == self.session.id()
    }

    /// Returns the paths of nodes.
    pub(super) fn paths(&self, created: &Created) -> Vec<String> {
        let names = created.names.iter();
        names.map(|name| self.lock.child(name)).collect()
    }

    /// Returns the paths of those nodes that are there, and not others of their names: once the
    /// lock's node was removed and created again, names begin anew.
    pub(super) async fn those_there(&self, created: &Created) -> Result<Vec<String>, Error> {
        self.those_seen_by(&self.session, created).await
    }

    /// Says whether all nodes are there, as another session sees it.
    pub(super) async fn is_seen_by(
        &self,
        session: &Session,
        created: &Created,
    ) -> Result<bool, Error> {
        let there = self.those_seen_by(session, created).await?;
        Ok(there.len() == created.names.len())
    }

    async fn those_seen_by(
        &self,
        session: &Session,
        created: &Created,
    ) -> Result<Vec<String>, Error> {
        let client = &session.client;
        let synced = client.sync(self.lock.node());
        let looked = self.paths(created).into_iter().map(|path| {
            let stat = client.check_stat(&path);
            (path, stat)
        });
        let looked: Vec<_> = looked.collect();
        synced.await?;
        let mut there = Vec::with_capacity(looked.len());
        for (path, stat) in looked {
            if stat.await?.is_some_and(|stat| self.is_same(created, &stat)) {
                there.push(path);
            }
        }
        Ok(there)
    }

    /// Says whether all nodes are there now, and not others of their names.
    pub(super) async fn are_there(&self, created: &Created) -> Result<bool, Error> {
        let client = &self.session.client;
        let looks = self.paths(created).into_iter().map(|path| {
            let stat = client.check_stat(&path);
            let look: BoxFuture<'_, _> = Box::pin(stat);
            look
        });
        for stat in join_all(looks.collect()).await {
            if !stat?.is_some_and(|stat| self.is_same(created, &stat)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says whether the nodes can be removed by their names. The server compares no owner, so what
    /// it removes may be another's node, if somebody removed this one and the lock's node went too.
    /// What is asked without a connection may be carried out at any time later.
    pub(super) fn was_seen_lately(&self, created: &Created) -> bool {
        self.session.is_connected() && !(created.seen_at + LATELY).has_passed()
    }

    /// Removes the nodes that are still there, and the lock's node if nobody else is. Says whether
    /// it was this owner who removed them all. `asked` is whether their removal was asked for
    /// before.
    pub(super) async fn remove(&self, created: &Created, asked: &mut bool) -> Result<bool, Error> {
        let by_name = !*asked && self.was_seen_lately(created);
        let unsent = unsent();
        let there = match by_name {
            true => self.paths(created),
            false => self.those_there(created).await?,
        };
        if there.is_empty() {
            self.remove_empty_lock().await;
            return Ok(*asked);
        }
        drop(unsent);
        let asked_before = std::mem::replace(asked, true);
        let mut all = there.len() == created.names.len();
        let client = &self.session.client;
        let removals: Vec<_> = there.iter().map(|path| client.delete(path, None)).collect();
        let removing = async {
            for removal in removals {
                match removal.await {
                    Ok(()) => {}
                    Err(Error::NoNode) => all = false,
                    Err(error) => return Err(error),
                }
            }
            Ok(all || asked_before)
        };
        // This is sent at once, too.
        join(removing, self.remove_empty_lock()).await.0
    }

    /// Removes the lock's node, if it is empty. If it is not, or gone, or not ours to remove, that
    /// is as it should be.
    pub(super) async fn remove_empty_lock(&self) {
        let _ = self.session.client.delete(self.lock.node(), None).await;
    }
}
