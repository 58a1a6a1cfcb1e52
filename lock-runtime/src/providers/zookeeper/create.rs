//! Creating the nodes by which one owner queues.

use zookeeper_client::{CreateMode, CreateOptions, Error, MultiWriteError, MultiWriteResult};

use super::error::fault;
use super::node::{Created, Node};
use super::queue::places;
use crate::clock::Timestamp;
use crate::future::BoxFuture;

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

/// What the server says of nodes that it has created: their names and their transaction.
type Answer = Result<(Vec<String>, i64), Error>;

impl Node {
    /// Creates the nodes. After an error there is none, or no session.
    ///
    /// Four requests are sent in one go, and carried out in order:
    ///
    /// * the creation of the lock's node, which is missing while nobody uses the lock;
    /// * that of the owner's own;
    /// * the removal of the nodes `instead_of` which they come;
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
            Some(old) if self.was_seen_lately(old) => self.paths(old),
            Some(old) => {
                let there = self.those_there(old).await;
                old_is_gone = there.as_ref().is_ok_and(Vec::is_empty);
                there.unwrap_or_default()
            }
            None => Vec::new(),
        };
        loop {
            let (sent_at, newest) = (Timestamp::now(), self.pool.transactions.newest());
            let parent = client.create(self.lock.node(), b"", &container);
            let child = self.ask_for_own(&prefix, &sequential);
            // Their removal is not asked for twice. If its answer is lost, only a look at whose they
            // are makes it safe.
            let old = std::mem::take(&mut instead_of);
            let old: Vec<_> = old.iter().map(|path| client.delete(path, None)).collect();
            let children = client.list_children(self.lock.node());
            let parent = parent.await;
            let child = child.await;
            if !old.is_empty() {
                old_is_gone = true;
            }
            for removal in old {
                old_is_gone &= matches!(removal.await, Ok(()) | Err(Error::NoNode));
            }
            let children = children.await.ok();
            match child {
                Ok((names, czxid)) => {
                    self.session.confirmed(sent_at);
                    self.pool.saw(czxid, newest);
                    let created = Created {
                        names,
                        czxid,
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

    /// Sends the request that creates the nodes, and returns the wait for its answer. Several are
    /// created in one transaction, so that their numbers follow each other.
    fn ask_for_own<'a>(
        &'a self,
        prefix: &'a str,
        options: &CreateOptions<'_>,
    ) -> BoxFuture<'a, Answer> {
        let client = &self.session.client;
        let owner = self.owner.as_bytes();
        let below = self.lock.node().len() + "/".len();
        let count = places(self.lock.mode());
        if count == 1 {
            let creating = client.create(prefix, owner, options);
            return Box::pin(async move {
                let (stat, sequence) = creating.await?;
                let name = format!("{}{sequence}", &prefix[below..]);
                Ok((vec![name], stat.czxid))
            });
        }
        let mut transaction = client.new_multi_writer();
        let added = (0..count).try_for_each(|_| transaction.add_create(prefix, owner, options));
        if let Err(error) = added {
            return Box::pin(async { Err(error) });
        }
        let creating = transaction.commit();
        Box::pin(async move {
            let results = match creating.await {
                Ok(results) => results,
                Err(MultiWriteError::OperationFailed { source, .. }) => return Err(source),
                Err(MultiWriteError::RequestFailed { source }) => return Err(source),
            };
            let (mut names, mut created_by) = (Vec::with_capacity(count), None);
            for result in results {
                if let MultiWriteResult::Create { path, stat } = result {
                    names.push(path[below..].to_owned());
                    created_by = (!stat.is_invalid()).then_some(stat.czxid);
                }
            }
            match created_by {
                Some(czxid) => Ok((names, czxid)),
                None => {
                    let czxid = self.creation_of(names.first()).await?;
                    Ok((names, czxid))
                }
            }
        })
    }

    /// Asks for the transaction that has just created this node. Up to version 3.8, servers do not
    /// say it in the answer to a transaction (ZOOKEEPER-4026). After an error, the node is looked
    /// for.
    async fn creation_of(&self, name: Option<&String>) -> Result<i64, Error> {
        let path = self.lock.child(name.map_or("", String::as_str));
        match self.session.client.check_stat(&path).await {
            Ok(Some(stat)) if stat.ephemeral_owner == self.session.id() => Ok(stat.czxid),
            _ => Err(Error::Timeout),
        }
    }
}
