//! Calls that become due in one moment, so that they go to the server in groups.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{DistributedLock, LockError, LockGuard, RedisProvider, RedisProviderBuilder};
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, poll_once};
use tokio::task::JoinHandle;

use crate::common::{BOUND, Raw, Server, connected, lock};

/// The calls of one moment: the first two find the connection idle and go alone, and the rest is
/// one full group.
pub(crate) const MANY: usize = 2 + 64;
/// How many requests these make at most, even if the machine is so busy that they miss each other.
pub(crate) const FEW: u64 = MANY as u64 / 6;

/// A provider whose answers can be held back, so that calls become due meanwhile.
pub(crate) struct Together {
    pub(crate) proxy: FaultProxy,
    pub(crate) provider: Arc<RedisProvider>,
    raw: Raw,
    /// Keeps what makes the groups from one call to the next.
    _kept: DistributedLock,
}

impl Together {
    pub(crate) async fn start(
        server: &Server,
        configure: impl FnOnce(RedisProviderBuilder) -> RedisProviderBuilder,
    ) -> Self {
        let builder = |address| configure(RedisProvider::builder(address));
        Self::start_at(server, "", builder).await
    }

    /// Starts one whose URL has these credentials before its host.
    pub(crate) async fn start_at(
        server: &Server,
        credentials: &str,
        builder: impl FnOnce(String) -> RedisProviderBuilder,
    ) -> Self {
        let proxy = FaultProxy::start(server.process.port()).await;
        let url = format!("redis://{credentials}127.0.0.1:{}", proxy.port());
        let provider = connected(builder(url)).await;
        let kept = lock(&provider, "warm-up");
        // So that the server knows the scripts: no answer that is held back says that it does not.
        let guard = kept.acquire_for(BOUND).await.expect("it is free");
        let mut next = Box::pin(kept.acquire_for(BOUND));
        assert!(poll_once(next.as_mut()).await.is_none());
        guard.release().await.expect("it is passed on");
        let guard = next.await.expect("it is passed on");
        guard.release().await.expect("it was held");
        let together = Self {
            proxy,
            provider,
            raw: server.raw.clone(),
            _kept: kept,
        };
        let names: Vec<_> = (0..8).map(|number| format!("warm-up:{number}")).collect();
        let guards = together.take_all(&names).await;
        together.release_all(guards).await;
        together
    }

    /// Begins these in one moment, and leaves them under way, with the answers held back.
    pub(crate) async fn begin<F>(&self, calls: Vec<F>) -> Vec<JoinHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.proxy.set(|fault| fault.to_client = Flow::Hold);
        let mut begun = Vec::new();
        for call in calls {
            let mut call: Pin<Box<F>> = Box::pin(call);
            let done = poll_once(call.as_mut()).await;
            begun.push(tokio::spawn(async move {
                match done {
                    Some(output) => output,
                    None => call.await,
                }
            }));
        }
        begun
    }

    /// Makes these calls in one moment, and checks that there were few requests.
    pub(crate) async fn all<F>(&self, calls: Vec<F>) -> Vec<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let before = asked(&self.raw).await;
        let begun = self.begin(calls).await;
        self.proxy.set(|fault| fault.to_client = Flow::Pass);
        let outputs = ended(begun).await;
        let asked = asked(&self.raw).await - before;
        let (count, most) = (outputs.len() as u64, 6 + outputs.len() as u64 / 4);
        assert!(asked <= most, "{asked} requests for {count} calls");
        outputs
    }

    /// Takes locks that are free, in one moment.
    pub(crate) async fn take_all(&self, names: &[String]) -> Vec<LockGuard> {
        let guards = self
            .all(names.iter().map(|name| self.take(name)).collect())
            .await;
        guards
            .into_iter()
            .map(|guard| guard.expect("it is free"))
            .collect()
    }

    pub(crate) fn take(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<LockGuard, LockError>> + Send + use<> {
        let lock = lock(&self.provider, name);
        async move { lock.acquire_for(BOUND).await }
    }

    /// Releases these in one moment.
    pub(crate) async fn release_all(&self, guards: Vec<LockGuard>) {
        let released = self
            .all(guards.into_iter().map(LockGuard::release).collect())
            .await;
        for released in released {
            released.expect("it was held");
        }
    }
}

pub(crate) async fn ended<T>(begun: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut outputs = Vec::new();
    for one in begun {
        outputs.push(one.await.expect("no panic"));
    }
    outputs
}

/// Returns how often the server was asked to run a script, other than by its text.
pub(crate) async fn asked(raw: &Raw) -> u64 {
    let text: String = raw.ask("INFO commandstats").await;
    let start = "cmdstat_evalsha:calls=";
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    let digits = line.map_or("0", |rest| rest.split(',').next().unwrap_or(rest));
    digits.parse().expect("a number")
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("n{number:02}")).collect()
}

pub(crate) fn tokens(guards: &[LockGuard]) -> Vec<u64> {
    let token = |guard: &LockGuard| guard.fencing_token().expect("a token").get();
    guards.iter().map(token).collect()
}

/// Says how many of these keys there are.
pub(crate) async fn held(raw: &Raw, names: &[String]) -> usize {
    raw.ask(&format!("EXISTS {}", names.join(" "))).await
}

/// Makes a lease so long that its end settles nothing in the test.
pub(crate) fn long(builder: RedisProviderBuilder) -> RedisProviderBuilder {
    builder.lease(Duration::from_secs(600))
}
