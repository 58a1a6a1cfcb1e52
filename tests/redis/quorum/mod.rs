//! Locks on a majority of independent servers.

mod connecting;
mod foreign;
mod leftovers;
mod nemesis;
mod order;
mod outage;
mod restart;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{DistributedLock, LockGuard, LockProvider};
use lock_tests::{FaultProxy, RedisServer};

use crate::common::{BOUND, Raw, Server};

/// Independent servers, in the order in which clients use them: the first has the queue.
pub(crate) struct Servers(pub(crate) Vec<Server>);

/// Runs a test with so many servers of its own, where one is installed.
pub(crate) fn with_servers<F>(count: usize, test: impl FnOnce(Servers) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    lock_tests::run(crate::common::DEADLINE, async move {
        let start = |_| RedisServer::start_plain();
        let Some(mut processes) = (0..count).map(start).collect::<Option<Vec<_>>>() else {
            return;
        };
        processes.sort_by_key(RedisServer::port);
        let mut servers = Vec::new();
        for process in processes {
            servers.push(Server::of(process).await);
        }
        test(Servers(servers)).await;
    });
}

/// What lets servers vote that have just been started.
pub(crate) const YOUNG: &str = "restart_delay=0s";

impl Servers {
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.0.iter().map(|server| server.process.port()).collect()
    }

    /// Connects a client of its own.
    pub(crate) async fn provider(&self, parameters: &str) -> Arc<dyn LockProvider> {
        connect(&self.ports(), parameters).await
    }

    /// Connects to a server that was started again.
    pub(crate) async fn look_again(&mut self, number: usize) {
        let url = self.0[number].process.url();
        self.0[number].raw = Raw::connect(&url).await;
    }

    /// Starts a proxy before each server.
    pub(crate) async fn proxies(&self) -> Proxies {
        let mut all = Vec::new();
        for port in self.ports() {
            all.push(FaultProxy::start(port).await);
        }
        Proxies(all)
    }

    pub(crate) async fn until_nothing_is_left(&self) {
        for server in &self.0 {
            server.raw.until_nothing_is_left().await;
        }
    }
}

/// One client's ways to the servers.
pub(crate) struct Proxies(pub(crate) Vec<FaultProxy>);

impl Proxies {
    pub(crate) async fn provider(&self, parameters: &str) -> Arc<dyn LockProvider> {
        let ports: Vec<_> = self.0.iter().map(FaultProxy::port).collect();
        connect(&ports, parameters).await
    }

    /// Breaks the way to a server, and lets no new connection pass.
    pub(crate) fn cut(&self, number: usize) {
        self.0[number].set(|fault| fault.refuse = true);
        self.0[number].reset();
    }
}

pub(crate) fn url(ports: &[u16], parameters: &str) -> String {
    let hosts: Vec<_> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    format!("redis-quorum://{}?{parameters}", hosts.join(","))
}

async fn connect(ports: &[u16], parameters: &str) -> Arc<dyn LockProvider> {
    let connected = lock_runtime::connect(&url(ports, parameters)).await;
    connected.expect("the provider connects")
}

pub(crate) fn lock(provider: &Arc<dyn LockProvider>, name: &str) -> DistributedLock {
    DistributedLock::on(provider.clone(), name)
}

/// Takes a lock that is free or about to be.
pub(crate) async fn take(provider: &Arc<dyn LockProvider>, name: &str) -> LockGuard {
    let taken = lock(provider, name).acquire_for(BOUND).await;
    taken.expect("free soon")
}

pub(crate) fn token(guard: &LockGuard) -> u64 {
    guard.fencing_token().expect("a token").get()
}

/// Says how long something took.
pub(crate) async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let began = std::time::Instant::now();
    let done = what.await;
    (done, began.elapsed())
}
