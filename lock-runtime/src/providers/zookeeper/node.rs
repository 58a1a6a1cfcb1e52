//! The node by which one owner holds a lock or waits for it: creating, finding and removing it.

use std::sync::Arc;
use std::time::Duration;

use zookeeper_client::{CreateMode, Error, Stat};

use super::error::fault;
use super::path::LockPath;
use super::session::{Room, Session};
use super::session_pool::SessionPool;
use crate::clock::Timestamp;
use crate::future::join;
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
    /// It is kept for as long as the node may be there.
    pub(super) room: Arc<Room>,
    pub(super) lock: LockPath,
    /// What stands in the node, and in no other one.
    pub(super) owner: String,
}

/// A node that exists.
#[derive(Debug, Clone)]
pub(super) struct Created {
    /// Its name below the lock's node.
    pub(super) name: String,
    /// The transaction that created it.
    pub(super) czxid: i64,
    /// A moment before the last request was sent that found it there.
    pub(super) seen_at: Timestamp,
}

/// What creating it brought to light.
pub(super) struct Queued {
    pub(super) created: Created,
    /// A moment before the creation was asked for.
    pub(super) sent_at: Timestamp,
    /// All children of the lock's node afterwards; `None` if they could not be listed.
    pub(super) children: Option<Vec<String>>,
    /// Whether the node is gone that was to go.
    pub(super) old_is_gone: bool,
}

impl Node {
    /// Creates the node. After an error there is no node, or no session.
    ///
    /// Four requests are sent in one go, and carried out in order:
    ///
    /// * the creation of the lock's node, which is missing while nobody uses the lock;
    /// * that of the owner's own;
    /// * the removal of the node `instead_of` which it comes;
    /// * a look at who else is there.
    pub(super) async fn create(&self, instead_of: Option<&Created>) -> Result<Queued, Error> {
        let acls = self.pool.settings.acls();
        let persistent = CreateMode::Persistent.with_acls(acls);
        // The server removes it when it is empty, should nobody be left to do so.
        let container = CreateMode::Container.with_acls(acls);
        let sequential = CreateMode::EphemeralSequential.with_acls(acls);
        let prefix = self.lock.child_prefix();
        let client = &self.session.client;
        let mut old_is_gone = false;
        let mut instead_of = match instead_of {
            Some(old) if self.was_seen_lately(old) => Some(self.lock.child(&old.name)),
            Some(old) => {
                let is_there = self.is_there(old).await;
                old_is_gone = matches!(is_there, Ok(false));
                matches!(is_there, Ok(true)).then(|| self.lock.child(&old.name))
            }
            None => None,
        };
        loop {
            let (sent_at, newest) = (Timestamp::now(), self.pool.transactions.newest());
            let parent = client.create(self.lock.node(), b"", &container);
            let child = client.create(&prefix, self.owner.as_bytes(), &sequential);
            let instead_of = instead_of.take();
            let old = instead_of.as_ref().map(|path| client.delete(path, None));
            let children = client.list_children(self.lock.node());
            let parent = parent.await;
            let child = child.await;
            if let Some(old) = old {
                // The removal is not asked for twice. If its answer is lost, only a look at whose
                // the node is makes it safe.
                old_is_gone = matches!(old.await, Ok(()) | Err(Error::NoNode));
            }
            let children = children.await.ok();
            match child {
                Ok((stat, sequence)) => {
                    self.session.confirmed(sent_at);
                    self.pool.saw(stat.czxid, newest);
                    let name = format!("{prefix}{sequence}");
                    let created = Created {
                        name: name[self.lock.node().len() + 1..].to_owned(),
                        czxid: stat.czxid,
                        seen_at: sent_at,
                    };
                    return Ok(Queued {
                        created,
                        sent_at,
                        children,
                        old_is_gone,
                    });
                }
                Err(Error::NoNode) => match parent {
                    // Somebody else was done with the lock just then, and has removed its node.
                    Ok(_) | Err(Error::NodeExists) => {}
                    Err(Error::NoNode) => {
                        let directory = &self.pool.settings.directory;
                        match client.mkdir(directory, &persistent).await {
                            Err(error) if !fault(&error).is_uncertain() => return Err(error),
                            _ => {}
                        }
                    }
                    Err(error) if fault(&error).is_uncertain() => {}
                    Err(error) => return Err(error),
                },
                Err(error) if fault(&error).is_uncertain() => {
                    if let Some(created) = self.find_patiently().await? {
                        return Ok(Queued {
                            created,
                            sent_at,
                            children: None,
                            old_is_gone,
                        });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds the node of this owner and this session, if there is one. Whatever was asked before on
    /// this session has been carried out by then, or never will be. A server that takes a session
    /// over sees to that (`SessionMovedException`), and `sync` brings it up to date.
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
        let found: Vec<_> = children
            .into_iter()
            .filter(|name| super::path::sequence(name).is_some())
            .map(|name| {
                let data = client.get_data(&self.lock.child(&name));
                (name, data)
            })
            .collect();
        for (name, data) in found {
            match data.await {
                Ok((data, stat)) if self.is_own(&data, &stat) => {
                    let czxid = stat.czxid;
                    return Ok(Some(Created {
                        name,
                        czxid,
                        seen_at,
                    }));
                }
                // It is another owner's, and may be gone by now, or hidden.
                Ok(_) | Err(Error::NoNode | Error::NoAuth) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Finds the node, and tries until the server can tell, or the session has ended.
    async fn find_patiently(&self) -> Result<Option<Created>, Error> {
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

    /// Says whether what stands at the node's path is that node. What it holds proves nothing:
    /// anybody may have written into it.
    pub(super) fn is_same(&self, created: &Created, stat: &Stat) -> bool {
        stat.czxid == created.czxid && stat.ephemeral_owner == self.session.id()
    }

    /// Says whether the node is there, and not another one of its name: once the lock's node was
    /// removed and created again, names begin anew.
    async fn is_there(&self, created: &Created) -> Result<bool, Error> {
        self.is_seen_by(&self.session, created).await
    }

    /// Says the same, as another session sees it.
    pub(super) async fn is_seen_by(
        &self,
        session: &Session,
        created: &Created,
    ) -> Result<bool, Error> {
        let path = self.lock.child(&created.name);
        let client = &session.client;
        let synced = client.sync(&path);
        let stat = client.check_stat(&path);
        synced.await?;
        Ok(stat.await?.is_some_and(|stat| self.is_same(created, &stat)))
    }

    /// Says whether the node can be removed by its name. The server compares no owner, so what it
    /// removes may be another's node, if somebody removed this one and the lock's node went too.
    /// What is asked without a connection may be carried out at any time later.
    fn was_seen_lately(&self, created: &Created) -> bool {
        self.session.is_connected() && !(created.seen_at + LATELY).has_passed()
    }

    /// Removes the node if it is still there, and the lock's node if nobody else is. Says whether
    /// it was this owner who removed it. `asked` is whether its removal was asked for before.
    pub(super) async fn remove(&self, created: &Created, asked: &mut bool) -> Result<bool, Error> {
        let by_name = !*asked && self.was_seen_lately(created);
        let unsent = unsent();
        if !by_name && !self.is_there(created).await? {
            self.remove_empty_lock().await;
            return Ok(*asked);
        }
        drop(unsent);
        let asked_before = std::mem::replace(asked, true);
        let own = self
            .session
            .client
            .delete(&self.lock.child(&created.name), None);
        // This is sent at once, too.
        join(own, self.remove_empty_lock())
            .await
            .0
            .map(|()| true)
            .or_else(|error| match error {
                Error::NoNode => Ok(asked_before),
                error => Err(error),
            })
    }

    /// Removes the lock's node, if it is empty. If it is not, or gone, or not ours to remove, that
    /// is as it should be.
    pub(super) async fn remove_empty_lock(&self) {
        let _ = self.session.client.delete(self.lock.node(), None).await;
    }
}
