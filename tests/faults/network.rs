//! A provider behind a proxy.

use std::sync::atomic::{AtomicU64, Ordering};

use lock_runtime::{RedisProvider, RedisProviderBuilder};
use lock_tests::FaultProxy;
use lock_tests::proxy::Flow;

use crate::common::Server;

pub(crate) async fn proxy_of(server: &Server) -> FaultProxy {
    FaultProxy::start(server.process.port()).await
}

pub(crate) fn builder_behind(proxy: &FaultProxy) -> RedisProviderBuilder {
    RedisProvider::builder(format!("redis://127.0.0.1:{}", proxy.port()))
}

/// Lets nothing come through any more, in either direction, without telling either end.
pub(crate) fn swallow_all(proxy: &FaultProxy) {
    proxy.set(|fault| {
        fault.to_server = Flow::Swallow;
        fault.to_client = Flow::Swallow;
    });
}

pub(crate) fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
