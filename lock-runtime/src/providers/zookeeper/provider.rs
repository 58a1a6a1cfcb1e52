//! What the core asks of ZooKeeper: which part of the provider answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::acquire::Acquisition;
use super::held::Held;
use super::inspect::inspect;
use super::release::release;
use super::renew::renew_all;
use super::session_pool::SessionPool;
use super::settings::Settings;
use super::sharing::may_share;
use crate::background::run_here;
use crate::clock::Timestamp;
use crate::provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockKind, LockProvider, LockSpace, LockState,
    describe,
};
use crate::{LockError, LockErrorKind, LockName};

/// Locks on a ZooKeeper ensemble, 3.5 or newer.
///
/// The lock `name` is the node `directory/key_prefix + name`, with characters that ZooKeeper does
/// not take replaced and a hash appended. Whoever wants the lock creates an ephemeral, sequential
/// child `lock-…` of it; the lowest one holds. That is the recipe of ZooKeeper's own documentation
/// (*ZooKeeper Recipes and Solutions: Locks*) with the names of the .NET `DistributedLock` library,
/// so both exclude each other. The node is created when missing and removed when empty. It is a
/// container: when its last child went with a session, the server itself removes it, within a
/// minute or so.
///
/// A reader–writer lock has children `read-…` and `write-…` there, and a semaphore `semaphore-…`, one
/// for each permit, again as the .NET library has them. The kinds do not see each other.
///
/// * **Lease.** It is the timeout of the session as the server grants it. All locks of a provider
///   share the session, so a lease named for a single lock has no effect. When the paths of the
///   nodes of all locks that are held or waited for have 100 KiB together, further locks are on
///   another session. A process that crashes keeps its locks for at most that long and one tick. A
///   holder counts on three fifths of it, or a little less, from the last request that a majority
///   of the ensemble has confirmed. What a leader knows of a session is older than what the client
///   knows, by up to half a tick and the time between two signs of life. The holder has its session
///   confirmed every fifth of the lease, by one request for all locks.
/// * **Waiting.** A waiter watches the one before it, and nobody else; a release wakes one waiter.
///   The order is that of arrival. A wait keeps its place while the connection is gone, as long as
///   the session may live. An unreachable ensemble is noticed when a request goes unanswered. A
///   waiter, which has no request outstanding, notices it once the connection has been silent for
///   its share of the connect timeout.
/// * **Several permits** of one caller are one lock. Their nodes must fit into the 100 KiB of a
///   session, or the request is refused with `InvalidConfig`.
/// * **Fencing tokens** are the ids of the transactions that created the nodes (`czxid`). They grow
///   over restarts, elections and reconnects, as long as the ensemble's data lives. When that is
///   gone, this process gives no tokens rather than lower ones. They are the ensemble's, so no
///   floor can be set: after a change from a provider whose tokens are higher, start a new column
///   for them.
/// * **Loss** is noticed when the session ends, when somebody removes the node, and when the
///   ensemble has confirmed nothing for too long. While the connection is gone, the session may
///   live on. Then the locks are held until that can no longer be shown, or until another session
///   finds that the node is gone. That one is tried after half a second; so a restart without the
///   data is told.
///
/// # What is weaker than elsewhere
///
/// * When another client deletes a lock's node or closes the session, the server lets the next one
///   in at once, before the holder is told. The fencing token tells them apart.
/// * A removal goes by the node's name; the server compares no owner. A node that was not seen in
///   the last 100 ms is looked at before. But another client may delete the holder's node within
///   that time, or within the round trip of the removal. If somebody else then takes the lock and
///   releases it, names begin anew, and the removal may hit the node of the next one. That one is
///   told that its lock is lost.
/// * A wrong password of the scheme `digest` is no error when connecting, since the server checks
///   none; the first lock fails by the ACL of its nodes.
/// * A name that contains characters which ZooKeeper does not take becomes one with a hash. A name
///   that is spelled like that, hash and all, is the same lock. The .NET library does the same.
/// * The client's own log at the level `debug` (target `zookeeper_client`) has the passwords of
///   sessions, with which others could take them over.
/// * TLS brings a second cryptography library, `aws-lc-rs`, into the build, which the client asks
///   for and this library does not use.
///
/// # What it relies on
///
/// The session timeout is at least two ticks, which is ZooKeeper's default for `minSessionTimeout`,
/// the same on all servers. A majority of the ensemble keeps what it has confirmed. Clocks of
/// leader and client run at the same speed, up to 1 %.
///
/// # Examples
///
/// ```no_run
/// use lock_runtime::ZooKeeperProvider;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let provider = ZooKeeperProvider::builder("zookeeper://zk1:2181,zk2:2181,zk3:2181")
///     .directory("/myapp/locks");
/// lock_runtime::register(provider.connect().await?)?;
/// # Ok(())
/// # }
/// ```
///
/// The same by a URL: `zookeeper://zk1:2181,zk2:2181,zk3:2181/myapp/locks`.
#[derive(Clone)]
pub struct ZooKeeperProvider {
    pool: Arc<SessionPool>,
    /// The session timeout that the server granted.
    lease: Duration,
}

impl ZooKeeperProvider {
    pub(super) async fn open(settings: Settings) -> Result<Self, LockError> {
        run_here(async move {
            let pool = Arc::new(SessionPool::new(settings));
            let lease = pool.session().await?.timeout();
            Ok(Self { pool, lease })
        })
        .await?
    }
}

impl LockProvider for ZooKeeperProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("zookeeper")
            .with_lease(self.lease)
            .with_fencing_tokens()
            .with_contention_reports()
            .with_response_timeout(self.pool.settings.common.response_timeout)
            .with_fairness()
            .with_read_write()
            .with_many_permits()
            .with_holders()
    }

    fn describe(&self) -> String {
        let settings = &self.pool.settings;
        let place = format!("{}{}", settings.hosts, settings.directory);
        let prefix = &settings.common.key_prefix;
        describe("zookeeper", &place, prefix, Some(self.lease))
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move { Acquisition::new(&self.pool, request).run(None).await })
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        Box::pin(async move {
            renew_all(&[grant])
                .await
                .pop()
                .unwrap_or_else(|| Err(LockErrorKind::ProviderUnavailable.into()))
        })
    }

    fn renew_all<'a>(
        &'a self,
        grants: &'a [Arc<Grant>],
    ) -> BoxFuture<'a, Vec<Result<Timestamp, LockError>>> {
        Box::pin(async move {
            let grants: Vec<_> = grants.iter().map(|grant| &**grant).collect();
            renew_all(&grants).await
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            match Held::of(grant) {
                Some(held) => release(held).await,
                None => Err(LockErrorKind::Lost.into()),
            }
        })
    }

    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            let acquisition = Acquisition::new(&self.pool, request);
            let Some(held) = Held::of(grant) else {
                return acquisition.run(None).await;
            };
            held.let_go();
            let outcome = acquisition.run(Some(held)).await;
            held.release_unconfirmed(false);
            outcome
        })
    }

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        Box::pin(async move {
            match Held::of(grant) {
                Some(held) => may_share(held).await,
                None => Err(LockErrorKind::Lost.into()),
            }
        })
    }

    fn inspect<'a>(
        &'a self,
        name: &'a LockName,
        kind: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        Box::pin(inspect(&self.pool, name, kind))
    }

    fn lock_space(&self) -> LockSpace {
        LockSpace::at(&self.pool)
    }

    fn clone_of(&self) -> Option<LockSpace> {
        Some(self.lock_space())
    }
}

impl fmt::Debug for ZooKeeperProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.pool.settings;
        f.debug_struct("ZooKeeperProvider")
            .field("hosts", &settings.hosts)
            .field("directory", &settings.directory)
            .field("key_prefix", &settings.common.key_prefix)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
