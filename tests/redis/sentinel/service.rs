//! Servers behind sentinels, and somebody who hears what the sentinels say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{RedisProvider, RedisProviderBuilder};
use lock_tests::FaultProxy;
use lock_tests::eventually;
use lock_tests::redis::sentinel::{SentinelOptions, WatchedServers};
use tokio::sync::watch;

use super::stub::Stub;
use crate::common::{BOUND, DEADLINE, Raw};

pub(crate) fn with_service<F>(
    options: SentinelOptions,
    test: impl FnOnce(Service) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    lock_tests::run(DEADLINE, async move {
        if let Some(servers) = options.start() {
            test(Service::of(servers).await).await;
        }
    });
}

/// Servers behind sentinels.
pub(crate) struct Service {
    pub(crate) all: WatchedServers,
    /// A connection to each server.
    pub(crate) raw: Vec<Raw>,
    switched: watch::Receiver<Option<Instant>>,
}

impl Service {
    async fn of(all: WatchedServers) -> Self {
        let mut raw = Vec::new();
        for server in &all.servers {
            raw.push(Raw::connect(&server.url()).await);
        }
        let (switched, hears) = watch::channel(None);
        let switched = Arc::new(switched);
        for sentinel in &all.sentinels {
            let url = format!("{}?protocol=resp3", sentinel.url());
            let (pushes, mut pushed) = tokio::sync::mpsc::unbounded_channel();
            let client = redis::Client::open(url).expect("a URL");
            let config = redis::AsyncConnectionConfig::new().set_push_sender(pushes);
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            let mut listening = connecting.await.expect("the sentinel answers");
            listening.subscribe("+switch-master").await.expect("it may");
            let switched = switched.clone();
            tokio::spawn(async move {
                let _listening = listening;
                while let Some(push) = pushed.recv().await {
                    if push.kind == redis::PushKind::Message {
                        switched.send_if_modified(|first| first.replace(Instant::now()).is_none());
                    }
                }
            });
        }
        Self {
            all,
            raw,
            switched: hears,
        }
    }

    pub(crate) fn builder(&self) -> RedisProviderBuilder {
        RedisProvider::builder(self.all.url())
    }

    /// Waits until a sentinel has said that the primary has changed.
    pub(crate) async fn switched(&self) {
        let mut switched = self.switched.clone();
        let waiting = switched.wait_for(Option::is_some);
        let heard = tokio::time::timeout(DEADLINE, waiting).await;
        heard.expect("a failover").expect("somebody listens");
    }

    /// Returns which server is the primary, by the word of most sentinels.
    pub(crate) fn primary(&self) -> usize {
        let mut votes: HashMap<u16, usize> = HashMap::new();
        for sentinel in &self.all.sentinels {
            *votes.entry(sentinel.primary()).or_default() += 1;
        }
        let (port, _) = votes.into_iter().max_by_key(|(_, votes)| *votes).unwrap();
        let servers = self.all.servers.iter();
        let ports: Vec<_> = servers.map(lock_tests::RedisServer::port).collect();
        ports
            .iter()
            .position(|it| *it == port)
            .expect("one of ours")
    }

    /// Returns a connection to the primary that has taken over from the first server. Sentinels end
    /// those that were there before.
    pub(crate) async fn new_primary(&self) -> Raw {
        let primary = self.primary();
        assert_ne!(primary, 0, "it has changed");
        Raw::connect(&self.all.servers[primary].url()).await
    }

    /// Waits until every replica has what the primary has.
    pub(crate) async fn replicated(&self) {
        let replicas = self.all.servers.len() - 1;
        let marked = self.raw[0].set_nx("mark", "mark").await;
        assert!(marked, "the primary takes writes");
        let got: usize = self.raw[0].ask(&format!("WAIT {replicas} 10000")).await;
        assert_eq!(got, replicas);
    }
}

/// A way to the sentinels that the test can cut.
pub(crate) struct Detour {
    pub(crate) proxies: Vec<FaultProxy>,
    ports: HashMap<u16, u16>,
}

impl Detour {
    pub(crate) async fn to(sentinels: impl IntoIterator<Item = u16>) -> Self {
        let (mut proxies, mut ports) = (Vec::new(), HashMap::new());
        for port in sentinels {
            let proxy = FaultProxy::start(port).await;
            ports.insert(port, proxy.port());
            proxies.push(proxy);
        }
        Self { proxies, ports }
    }

    /// Names the sentinels by the detour, also those that others tell of.
    pub(crate) fn builder(&self) -> RedisProviderBuilder {
        let hosts = self.proxies.iter();
        let hosts = hosts.map(|proxy| format!("127.0.0.1:{}", proxy.port()));
        let ports = self.ports.clone();
        RedisProvider::sentinel("orders", hosts).address_map(move |host, port| {
            let port = ports.get(&port).copied().unwrap_or(port);
            (host.to_owned(), port)
        })
    }
}

/// Waits until so many listen to each stub.
pub(crate) async fn until_heard(stubs: &[&Stub], listeners: usize) {
    eventually("somebody listens", BOUND, || async {
        stubs.iter().all(|stub| stub.listeners() == listeners)
    })
    .await;
}

/// A time that is short, on a loaded machine too, and shorter than any period of the library's.
pub(crate) const SOON: Duration = Duration::from_millis(100);
