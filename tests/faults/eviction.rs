//! A server whose memory is full throws keys away, locks among them.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_tests::eventually;
use tracing_subscriber::fmt::MakeWriter;

use crate::common::{BOUND, Raw, connected, take, with_server};
use crate::server_stats::life;

/// Collects the warnings of this process.
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

    fn about(&self, policy: &str) -> usize {
        let text = self.0.lock().unwrap();
        String::from_utf8_lossy(&text)
            .lines()
            .filter(|line| line.contains("evicts keys") && line.contains(policy))
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

async fn limit(raw: &Raw, policy: &str, bytes: u64) {
    raw.ask::<String>(&format!("CONFIG SET maxmemory-policy {policy}"))
        .await;
    raw.ask::<String>(&format!("CONFIG SET maxmemory {bytes}"))
        .await;
}

/// No other test here connects to a server that can evict, so the warnings are this one's.
#[test]
fn a_server_that_evicts_is_warned_of() {
    let warnings = Warnings::collect();
    with_server(move |server| async move {
        for policy in ["allkeys-lru", "volatile-lru", "volatile-ttl"] {
            // Without a limit nothing is ever evicted, whatever the policy.
            limit(&server.raw, policy, 0).await;
            server.provider().await;
            assert_eq!(warnings.about(policy), 0, "{policy}");
            limit(&server.raw, policy, 100_000_000).await;
            server.provider().await;
            assert_eq!(warnings.about(policy), 1, "{policy}");
        }
        let so_far = warnings.about("");
        limit(&server.raw, "noeviction", 100_000_000).await;
        let provider = server.provider().await;
        assert_eq!(warnings.about(""), so_far);
        // Behind the same address there may be another server with each connection.
        for policy in ["allkeys-random", "allkeys-random", "allkeys-lfu"] {
            limit(&server.raw, policy, 100_000_000).await;
            let killed = server.raw.ask::<u64>("CLIENT KILL TYPE pubsub").await;
            assert!(killed >= 1);
            take(&provider, "order").await.release().await.unwrap();
            eventually("it is warned of", BOUND, || async {
                warnings.about(policy) > 0
            })
            .await;
        }
        assert_eq!(warnings.about("allkeys-random"), 1, "once");
        assert_eq!(warnings.about("allkeys-lfu"), 1);
    });
}

#[test]
fn an_evicted_lock_is_a_loss_and_tokens_go_on_growing() {
    with_server(|server| async move {
        let raw = &server.raw;
        let lease = Duration::from_secs(6);
        let provider = connected(server.builder().lease(lease)).await;
        let other = connected(server.builder().lease(lease)).await;
        for policy in ["allkeys-lru", "volatile-lru"] {
            let guard = take(&provider, "order").await;
            let owner = raw.get("order").await;
            let evicted = raw.info("evicted_keys").await;
            let room = raw.info("used_memory").await + 1_000_000;
            limit(raw, policy, room).await;
            let filler = "x".repeat(100_000);
            let mut fillers = 0;
            // The oldest go first, which are the lock and the fencing counter.
            eventually("they are evicted", BOUND, || {
                fillers += 1;
                let set = format!("SET filler{fillers} {filler}");
                async move {
                    // Refused where nothing is left that may be evicted.
                    let _ = raw.try_ask::<String>(&set).await;
                    raw.ask::<u8>("EXISTS order lk1:fence").await == 0
                }
            })
            .await;
            assert!(raw.info("evicted_keys").await >= evicted + 2);
            limit(raw, "noeviction", 0).await;
            raw.ask::<String>("FLUSHALL").await;
            // Another one takes it before the first one can know; the token says who is newer.
            let next = take(&other, "order").await;
            assert!(next.fencing_token() > guard.fencing_token());
            let found = tokio::time::timeout(lease, guard.lost()).await;
            found.expect("it is noticed within the lease");
            drop(guard);
            assert!(!next.is_lost());
            assert_ne!(raw.get("order").await, owner);
            next.release().await.unwrap();
        }
    });
}

#[test]
fn one_counter_serves_all_names_and_lives_for_days() {
    const NAMES: usize = 100;
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let mut last = None;
        for number in 0..NAMES {
            let guard = take(&provider, &format!("order{number}")).await;
            assert!(guard.fencing_token() > last);
            last = guard.fencing_token();
            guard.release().await.unwrap();
        }
        let keys: Vec<String> = server.raw.ask("KEYS *").await;
        assert_eq!(keys, ["lk1:fence"]);
        let lives_for_days = || async {
            let days = life(&server.raw, "lk1:fence").await / (24 * 60 * 60 * 1_000);
            assert!(days >= 7, "{days} days");
        };
        lives_for_days().await;
        // As if it had expired.
        server.raw.ask::<String>("PEXPIRE lk1:fence 1").await;
        eventually("it has expired", BOUND, || async {
            server.raw.get("lk1:fence").await.is_none()
        })
        .await;
        assert!(take(&provider, "order").await.fencing_token() > last);
        lives_for_days().await;
    });
}
