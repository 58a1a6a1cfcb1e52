//! A server, one that follows it, and addresses that lead to either.

use std::time::Duration;

use lock_runtime::{LockGuard, RedisProviderBuilder};
use lock_tests::{FaultProxy, RedisServer};
use tokio::task::JoinHandle;

use crate::common::{Server, connected, follow, take, with_server};
use crate::network::{builder_behind, proxy_of};

pub(crate) const LEASE: Duration = Duration::from_secs(6);

/// A server, one that follows it, and an address for each of two clients.
pub(crate) struct Servers {
    pub(crate) old: Server,
    pub(crate) new: Server,
    pub(crate) replication: FaultProxy,
    pub(crate) holders: FaultProxy,
    pub(crate) waiters: FaultProxy,
}

impl Servers {
    async fn from(old: Server) -> Option<Self> {
        let new = Server::of(RedisServer::start_plain()?).await;
        Some(Self {
            replication: follow(&old, &new).await,
            holders: proxy_of(&old).await,
            waiters: proxy_of(&old).await,
            old,
            new,
        })
    }

    /// Takes the lock on the holder's side, and queues for it on the waiter's.
    pub(crate) async fn hold_and_wait(&self) -> (LockGuard, JoinHandle<LockGuard>) {
        let holder = connected(self.client(&self.holders)).await;
        let waiter = connected(self.client(&self.waiters)).await;
        let guard = take(&holder, "order").await;
        let waiting = tokio::spawn(async move { take(&waiter, "order").await });
        self.old.raw.until_waiting("order", 1).await;
        (guard, waiting)
    }

    /// Waits until the new server knows who holds the lock and who waits, and answers the owner.
    pub(crate) async fn replicated(&self) -> Option<String> {
        self.new.raw.until_waiting("order", 1).await;
        let owner = self.old.raw.get("order").await;
        assert_eq!(self.new.raw.get("order").await, owner);
        owner
    }

    pub(crate) fn client(&self, address: &FaultProxy) -> RedisProviderBuilder {
        let patience = Duration::from_secs(30);
        builder_behind(address)
            .lease(LEASE)
            .failover_timeout(patience)
    }

    /// Makes the new server the primary, which the moved addresses lead to. The old one follows it,
    /// and takes no writes any more.
    pub(crate) async fn fail_over(&self, moved: &[&FaultProxy]) {
        self.new.raw.ask::<String>("REPLICAOF NO ONE").await;
        for address in moved {
            address.lead_to(self.new.process.port());
        }
        let demote = format!("REPLICAOF 127.0.0.1 {}", self.new.process.port());
        self.old.raw.ask::<String>(&demote).await;
    }
}

pub(crate) fn with_servers<F>(test: impl FnOnce(Servers) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    with_server(|server| async move {
        if let Some(servers) = Servers::from(server).await {
            test(servers).await;
        }
    });
}
