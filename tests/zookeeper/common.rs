//! A directory of a test's own on a server, and a client that looks at it from outside.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_runtime::{
    AcquireRequest, DistributedLock, Grant, Interest, LockError, LockGuard, LockMode, LockProvider,
    ZooKeeperProvider, ZooKeeperProviderBuilder,
};
use lock_tests::proxy::Flow;
use lock_tests::zookeeper::SharedServer;
use lock_tests::{FaultProxy, eventually, unique};
use zookeeper_client::{Acls, Client, CreateMode, Error, Stat};

/// The time that no test exceeds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// The time within which everything happens that must happen soon, on a loaded machine too.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
/// A lease that nothing in a test outlasts.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Runs a test in a directory of its own on the server that the tests share.
pub(crate) fn with_server<F>(test: impl FnOnce(Place) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    lock_tests::run(DEADLINE, async move {
        if let Some(server) = SharedServer::find() {
            test(Place::on(server.port()).await).await;
        }
    });
}

/// A directory on a server, and a client that has nothing to do with the library.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) directory: String,
    pub(crate) raw: Client,
}

impl Place {
    pub(crate) async fn on(port: u16) -> Self {
        let connector = Client::connector().with_session_timeout(LONG);
        let raw = connector.connect(&format!("127.0.0.1:{port}")).await;
        Self {
            port,
            directory: format!("/{}", unique()),
            raw: raw.expect("the server answers"),
        }
    }

    pub(crate) fn builder(&self) -> ZooKeeperProviderBuilder {
        self.builder_at(self.port)
    }

    /// Makes a builder for the same locks through another port.
    pub(crate) fn builder_at(&self, port: u16) -> ZooKeeperProviderBuilder {
        ZooKeeperProvider::builder(format!("zookeeper://127.0.0.1:{port}"))
            .directory(&self.directory)
            .lease(LONG)
    }

    pub(crate) async fn provider(&self) -> Arc<ZooKeeperProvider> {
        connected(self.builder()).await
    }

    /// Returns the URL of these locks through another port.
    pub(crate) fn url(&self, port: &str, lease: Duration) -> String {
        let lease = lease.as_millis();
        format!(
            "zookeeper://127.0.0.1:{port}{}?lease={lease}ms",
            self.directory
        )
    }

    /// Makes a provider behind a proxy.
    pub(crate) async fn behind_proxy(
        &self,
        change: impl FnOnce(ZooKeeperProviderBuilder) -> ZooKeeperProviderBuilder,
    ) -> (FaultProxy, Arc<ZooKeeperProvider>) {
        let proxy = FaultProxy::start(self.port).await;
        let provider = connected(change(self.builder_at(proxy.port()))).await;
        (proxy, provider)
    }

    pub(crate) fn node(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    /// Returns the children of a lock's node in the order of their creation; none if the node is
    /// not there.
    pub(crate) async fn children(&self, name: &str) -> Vec<String> {
        match self.raw.list_children(&self.node(name)).await {
            Ok(mut children) => {
                children.sort();
                children
            }
            Err(Error::NoNode) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn until_children(&self, name: &str, count: usize) -> Vec<String> {
        eventually("so many queue", BOUND, || async {
            self.children(name).await.len() == count
        })
        .await;
        self.children(name).await
    }

    /// Returns the path of a child of a lock's node.
    pub(crate) fn path(&self, name: &str, child: &str) -> String {
        format!("{}/{child}", self.node(name))
    }

    /// Returns the data and the state of a child of a lock's node.
    pub(crate) async fn child(&self, name: &str, child: &str) -> (Vec<u8>, Stat) {
        let read = self.raw.get_data(&self.path(name, child)).await;
        read.expect("the child is there")
    }

    /// Returns the session that a child of a lock's node belongs to.
    pub(crate) async fn session_of(&self, name: &str, child: &str) -> i64 {
        self.child(name, child).await.1.ephemeral_owner
    }

    pub(crate) async fn exists(&self, name: &str) -> bool {
        let stat = self.raw.check_stat(&self.node(name)).await;
        stat.expect("the server answers").is_some()
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        eventually("the lock's node is gone", BOUND, || async {
            !self.exists(name).await
        })
        .await;
    }

    /// Queues as another program does, and returns the path of its node.
    pub(crate) async fn queue(&self, name: &str, word: &str, data: &[u8]) -> String {
        let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let made = self.raw.mkdir(&self.node(name), &persistent).await;
        made.expect("directories can be made");
        let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
        let prefix = self.path(name, word);
        let (_, sequence) = self.raw.create(&prefix, data, &options).await.unwrap();
        format!("{prefix}{sequence}")
    }
}

/// Breaks the connections, and lets no new ones pass until the proxy is healed.
pub(crate) async fn keep_off(proxy: &FaultProxy) {
    let refused = proxy.counts().refused.load(Ordering::Relaxed);
    proxy.set(|fault| fault.refuse = true);
    proxy.reset();
    eventually("it tries to connect", BOUND, || async {
        proxy.counts().refused.load(Ordering::Relaxed) > refused
    })
    .await;
}

/// Breaks the connections, with what is under way on them. New ones pass only after that.
pub(crate) async fn break_off(proxy: &FaultProxy) {
    let broken = proxy.counts().broken.load(Ordering::Relaxed);
    proxy.set(|fault| fault.refuse = true);
    proxy.reset();
    eventually("the connection breaks", BOUND, || async {
        proxy.counts().broken.load(Ordering::Relaxed) > broken
    })
    .await;
    proxy.heal();
}

/// Silences the proxy: from now on its client neither hears nor is heard.
pub(crate) fn silence(proxy: &FaultProxy) {
    proxy.set(|fault| {
        fault.to_server = Flow::Swallow;
        fault.to_client = Flow::Swallow;
        fault.refuse = true;
    });
}

pub(crate) async fn connected(builder: ZooKeeperProviderBuilder) -> Arc<ZooKeeperProvider> {
    Arc::new(builder.connect().await.expect("the provider connects"))
}

pub(crate) fn lock(provider: &Arc<ZooKeeperProvider>, name: &str) -> DistributedLock {
    DistributedLock::on(provider.clone(), name)
}

/// Takes a lock that is free or about to be.
pub(crate) async fn take(provider: &Arc<ZooKeeperProvider>, name: &str) -> LockGuard {
    let taken = lock(provider, name).acquire_for(BOUND).await;
    taken.unwrap_or_else(|error| panic!("free soon: {error}"))
}

/// Waits for the lock in a task of its own.
pub(crate) fn waiting(
    provider: &Arc<ZooKeeperProvider>,
    name: &'static str,
) -> tokio::task::JoinHandle<LockGuard> {
    let provider = provider.clone();
    tokio::spawn(async move { take(&provider, name).await })
}

/// Makes a request of this mode, as the library does.
pub(crate) fn request(name: &str, mode: LockMode, waits: bool) -> (AcquireRequest, Interest) {
    let (request, interest) = AcquireRequest::new(name, LONG, waits).expect("random numbers");
    (request.with_mode(mode), interest)
}

/// Asks a provider itself, and does not wait.
pub(crate) async fn try_enter(
    provider: &ZooKeeperProvider,
    name: &str,
    mode: LockMode,
) -> Result<Grant, LockError> {
    provider.acquire(&request(name, mode, false).0).await
}

/// Asks a provider itself, and waits.
pub(crate) async fn enter(provider: &ZooKeeperProvider, name: &str, mode: LockMode) -> Grant {
    let (request, _interest) = request(name, mode, true);
    let acquiring = tokio::time::timeout(BOUND, provider.acquire(&request));
    acquiring.await.expect("in time").expect("granted")
}

/// Does the same in a task of its own.
pub(crate) fn entering(
    provider: &Arc<ZooKeeperProvider>,
    name: &str,
    mode: LockMode,
) -> (tokio::task::JoinHandle<Result<Grant, LockError>>, Interest) {
    let (request, interest) = request(name, mode, true);
    let provider = Arc::clone(provider);
    let task = tokio::spawn(async move { provider.acquire(&request).await });
    (task, interest)
}

pub(crate) fn token(guard: &LockGuard) -> u64 {
    guard.fencing_token().expect("every grant has one").get()
}
