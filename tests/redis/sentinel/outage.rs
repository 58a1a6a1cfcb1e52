//! Sentinels that are gone.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_runtime::{LockErrorKind, LockProvider, RedisProvider};
use lock_tests::redis::sentinel::SentinelOptions;
use lock_tests::{RedisServer, eventually};
use tracing_subscriber::fmt::MakeWriter;

use super::service::{SOON, until_heard, with_service};
use super::stub::{Says, Stub};
use crate::common::{BOUND, connected, lock, take};

/// Collects the warnings of this process about sentinels.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u8>>>);

impl Warnings {
    fn collect() -> Self {
        let warnings = Self::default();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(warnings.clone())
            .init();
        warnings
    }

    fn about(&self, service: &str) -> usize {
        let text = self.0.lock().unwrap();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines();
        lines
            .filter(|line| {
                line.contains("no Redis sentinel can be reached") && line.contains(service)
            })
            .count()
    }
}

impl Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Warnings {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn no_sentinel_is_one_warning_and_no_loss() {
    let warnings = Warnings::collect();
    crate::common::with_server(|server| async move {
        let says = || Says {
            service: "warned",
            ..Says::primary(server.process.port(), 0)
        };
        let stubs = [Stub::start(says()).await, Stub::start(says()).await];
        let [one, two] = &stubs;
        let hosts = stubs
            .each_ref()
            .map(|stub| format!("127.0.0.1:{}", stub.port));
        let lease = Duration::from_millis(1_500);
        let builder = RedisProvider::sentinel("warned", hosts)
            .password("secret")
            .sentinel_password("secret");
        let provider = connected(builder.lease(lease)).await;
        until_heard(&[one, two], 1).await;
        let guard = take(&provider, "order").await;
        let [one, two] = stubs;
        one.hang_up();
        drop(one);
        // The other one is there.
        tokio::time::sleep(SOON * 5).await;
        assert_eq!(warnings.about("warned"), 0);
        two.hang_up();
        drop(two);
        eventually("it is warned", BOUND, || async {
            warnings.about("warned") > 0
        })
        .await;
        // Each is tried again and again meanwhile.
        tokio::time::sleep(lease * 2).await;
        assert_eq!(warnings.about("warned"), 1);
        assert_eq!(warnings.about("secret"), 0);
        assert!(!format!("{provider:?} {}", provider.describe()).contains("secret"));
        assert!(!guard.is_lost(), "it is renewed");
        take(&provider, "another").await.release().await.unwrap();
        guard.release().await.unwrap();
    });
}

/// One is killed and one frozen before the start; then a second one is killed, and the primary.
#[test]
fn one_sentinel_is_enough_for_as_long_as_the_primary_lives() {
    with_service(SentinelOptions::default(), |mut service| async move {
        service.all.sentinels[0].kill();
        let lease = Duration::from_secs(3);
        let patience = Duration::from_secs(2);
        let builder = || service.builder().lease(lease).failover_timeout(patience);
        let provider = connected(builder()).await;
        service.all.sentinels[1].process().freeze();
        let guard = take(&provider, "order").await;
        let again = connected(builder()).await;
        assert!(lock(&again, "order").try_acquire().await.unwrap().is_none());
        tokio::time::sleep(lease).await;
        assert!(!guard.is_lost());
        service.all.servers[0].kill();
        let error = lock(&again, "free").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        // Two of three would have to agree on another primary.
        let error = lock(&again, "free").acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        guard.lost().await;
    });
}

/// A sentinel that was frozen during the failover is thawed when it is the only one left.
#[test]
fn a_sentinel_that_slept_through_the_failover_leads_nobody_back() {
    with_service(SentinelOptions::default(), |mut service| async move {
        let quick = Duration::from_millis(500);
        let url = service.all.url();
        let builder = || RedisProvider::builder(&url).response_timeout(quick);
        let provider = connected(builder()).await;
        let guard = take(&provider, "order").await;
        service.replicated().await;
        service.all.sentinels[2].process().freeze();
        service.all.servers[0].kill();
        service.switched().await;
        take(&provider, "another").await.release().await.unwrap();
        assert!(!guard.is_lost());
        service.all.servers[0].restart();
        let new = service.new_primary().await;
        service.all.sentinels[0].kill();
        service.all.sentinels[1].kill();
        service.all.sentinels[2].process().thaw();
        let ports = service.all.servers.iter().map(RedisServer::port);
        let ports: Vec<_> = ports.collect();
        assert!(ports.contains(&service.all.sentinels[2].primary()));
        take(&provider, "another").await.release().await.unwrap();
        // Where it was connected to is remembered, too.
        new.ask::<u64>("CLIENT KILL TYPE pubsub").await;
        take(&provider, "another").await.release().await.unwrap();
        assert!(!guard.is_lost());
        guard.release().await.unwrap();
        // Somebody who comes now is led to the same place, or nowhere.
        if let Ok(late) = builder().connect().await {
            let late = Arc::new(late);
            let guard = take(&provider, "order").await;
            let tried = lock(&late, "order").try_acquire().await;
            assert!(!matches!(tried, Ok(Some(_))), "two holders");
            guard.release().await.unwrap();
        }
    });
}

/// It is named by a host, and the other one tells its address.
#[test]
fn a_sentinel_with_two_names_is_listened_to_once() {
    with_service(
        SentinelOptions::default().with(0, 2),
        |service| async move {
            let service = service;
            let named = format!("localhost:{}", service.all.sentinels[0].port());
            let provider = connected(RedisProvider::sentinel("orders", [named])).await;
            let listeners = || {
                let sentinels = service.all.sentinels.iter();
                let clients = sentinels.map(|sentinel| sentinel.ask("CLIENT LIST").concat());
                clients
                    .map(|list| list.matches(" sub=1").count())
                    .collect::<Vec<_>>()
            };
            // The test listens too.
            eventually("both are listened to", BOUND, || async {
                listeners() == [2, 2]
            })
            .await;
            tokio::time::sleep(SOON * 5).await;
            assert_eq!(listeners(), [2, 2]);
            take(&provider, "order").await.release().await.unwrap();
        },
    );
}
