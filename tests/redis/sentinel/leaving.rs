//! What is under way at a primary when another server takes over. The test plays the sentinel, and
//! the old primary answers late.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockMode, LockProvider, RedisProvider};
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, RedisServer, eventually};

use super::service::until_heard;
use super::stub::{Says, Stub};
use crate::common::{BOUND, DEADLINE, LONG, Server, connected, enter, follow, lock, request, take};

/// A primary behind a proxy, a replica, and a sentinel that knows both.
struct Pair {
    old: Server,
    new: Server,
    sentinel: Stub,
    way: FaultProxy,
    _replication: FaultProxy,
}

impl Pair {
    async fn start() -> Option<Self> {
        let old = Server::of(RedisServer::start_plain()?).await;
        let new = Server::of(RedisServer::start_plain()?).await;
        let replication = follow(&old, &new).await;
        Some(Self {
            sentinel: Stub::start(Says::primary(old.process.port(), 0)).await,
            way: FaultProxy::start(old.process.port()).await,
            _replication: replication,
            old,
            new,
        })
    }

    async fn provider(&self, lease: Duration) -> Arc<RedisProvider> {
        let (old, way) = (self.old.process.port(), self.way.port());
        let sentinel = format!("127.0.0.1:{}", self.sentinel.port);
        let builder = RedisProvider::sentinel("orders", [sentinel])
            .lease(lease)
            .response_timeout(DEADLINE)
            .connect_timeout(DEADLINE)
            .address_map(move |host, port| {
                let port = if port == old { way } else { port };
                (host.to_owned(), port)
            });
        let provider = connected(builder).await;
        until_heard(&[&self.sentinel], 1).await;
        // The server knows the scripts from here on.
        take(&provider, "warm-up").await.release().await.unwrap();
        provider
    }

    /// Waits until all that was asked before is answered: on one connection it is, in order.
    async fn until_answered(&self, provider: &Arc<RedisProvider>) {
        take(provider, "after").await.release().await.unwrap();
    }

    /// Holds back what the old primary answers.
    fn hold_answers(&self) {
        self.way.set(|fault| fault.to_client = Flow::Hold);
    }

    /// Makes the replica the primary, with the data that it has, before the old one does any more.
    async fn promote(&self) {
        self.new.raw.ask::<String>("REPLICAOF NO ONE").await;
    }

    fn switch(&self) {
        let [old, new] = [&self.old, &self.new].map(|it| it.process.port());
        self.sentinel.say(|says| *says = Says::primary(new, 1));
        self.sentinel.switch(old, new);
    }

    /// Waits until a provider that holds a lock has connected to the new primary.
    async fn until_moved(&self) {
        eventually("it has moved", BOUND, || async {
            let channels: Vec<String> = self.new.raw.ask("PUBSUB CHANNELS lk1:grants:*").await;
            !channels.is_empty()
        })
        .await;
    }
}

fn with_pair<F>(test: impl FnOnce(Pair) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    lock_tests::run(DEADLINE, async move {
        if let Some(pair) = Pair::start().await {
            test(pair).await;
        }
    });
}

#[test]
fn a_release_that_the_old_primary_answers_late_is_made_at_the_new_one() {
    with_pair(|pair| async move {
        let provider = pair.provider(LONG).await;
        let _held = take(&provider, "held").await;
        let guard = take(&provider, "order").await;
        let grant = enter(&provider, "alone", LockMode::Exclusive).await;
        eventually("they are replicated", BOUND, || async {
            pair.new.raw.get("alone").await.is_some()
        })
        .await;
        pair.promote().await;
        pair.hold_answers();
        let releasing = tokio::spawn(guard.release());
        let alone = tokio::spawn(async move { provider.release(&grant).await });
        for name in ["order", "alone"] {
            pair.old.raw.until_gone(name, BOUND).await;
            assert!(pair.new.raw.get(name).await.is_some());
        }
        pair.switch();
        pair.until_moved().await;
        pair.way.heal();
        releasing.await.unwrap().expect("it was held");
        alone.await.unwrap().expect("it was held");
        for name in ["order", "alone"] {
            pair.new.raw.until_gone(name, BOUND).await;
        }
    });
}

#[test]
fn a_waiter_that_leaves_meanwhile_leaves_both() {
    with_pair(|pair| async move {
        let provider = pair.provider(LONG).await;
        let _held = take(&provider, "held").await;
        // Where another client holds it, whoever waits looks again all the time.
        let other = pair.old.provider_with_long_lease().await;
        let _other = take(&other, "order").await;
        let waiting = tokio::spawn({
            let provider = provider.clone();
            async move { lock(&provider, "order").acquire().await }
        });
        pair.new.raw.until_waiting("order", 1).await;
        pair.until_answered(&provider).await;
        pair.promote().await;
        pair.hold_answers();
        waiting.abort();
        pair.old.raw.until_waiting("order", 0).await;
        pair.new.raw.until_waiting("order", 1).await;
        pair.switch();
        pair.until_moved().await;
        pair.way.heal();
        pair.new.raw.until_waiting("order", 0).await;
    });
}

/// Its mark at the new primary would keep readers away until it expires.
#[test]
fn an_upgrade_that_is_abandoned_meanwhile_is_taken_back_at_both() {
    with_pair(|pair| async move {
        let (provider, other) = (pair.provider(LONG).await, pair.old.provider().await);
        let _held = take(&provider, "held").await;
        let _reader = enter(&other, "order", LockMode::Read).await;
        let may = enter(&provider, "order", LockMode::Upgradeable).await;
        let (asking, interest) = request("order", LockMode::Write, LONG, true);
        let upgrading = tokio::spawn({
            let provider = provider.clone();
            async move { provider.upgrade(&may, &asking).await }
        });
        eventually("its mark is replicated", BOUND, || async {
            pair.new.raw.get("order.writer").await.is_some()
        })
        .await;
        pair.until_answered(&provider).await;
        pair.promote().await;
        pair.hold_answers();
        interest.abandon();
        pair.old.raw.until_gone("order.writer", BOUND).await;
        assert!(pair.new.raw.get("order.writer").await.is_some());
        pair.switch();
        pair.until_moved().await;
        pair.way.heal();
        let error = upgrading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        assert_eq!(pair.new.raw.get("order.writer").await, None);
    });
}

/// Many are released in the same moment, so some go together in one request.
#[test]
fn releases_that_go_together_are_made_at_the_new_primary_too() {
    with_pair(|pair| async move {
        let provider = pair.provider(LONG).await;
        let _held = take(&provider, "held").await;
        // Twice, since scripts for several are known only when they were run.
        for round in ["a", "b"] {
            let names: Vec<_> = (0..8).map(|number| format!("{round}:{number}")).collect();
            let mut guards = Vec::new();
            for name in &names {
                guards.push(take(&provider, name).await);
            }
            if round == "b" {
                eventually("they are replicated", BOUND, || async {
                    pair.new.raw.get("b:7").await.is_some()
                })
                .await;
                pair.promote().await;
                pair.hold_answers();
            }
            let releasing: Vec<_> = guards
                .into_iter()
                .map(|guard| tokio::spawn(guard.release()))
                .collect();
            for name in &names {
                pair.old.raw.until_gone(name, BOUND).await;
            }
            if round == "b" {
                pair.switch();
                pair.until_moved().await;
                pair.way.heal();
            }
            for released in releasing {
                released.await.unwrap().expect("it was held");
            }
            for name in &names {
                pair.new.raw.until_gone(name, BOUND).await;
            }
        }
    });
}

/// The grant is sent, and is not heard before the failover. The new primary gives the lock to
/// somebody else.
#[test]
fn a_grant_of_the_old_primary_is_none() {
    with_pair(|pair| async move {
        let provider = pair.provider(LONG).await;
        let _held = take(&provider, "held").await;
        pair.promote().await;
        pair.hold_answers();
        let asking = tokio::spawn({
            let provider = provider.clone();
            async move { lock(&provider, "order").try_acquire().await }
        });
        eventually("it is granted", BOUND, || async {
            pair.old.raw.get("order").await.is_some()
        })
        .await;
        assert!(pair.new.raw.set_nx("order", "somebody").await);
        pair.switch();
        pair.until_moved().await;
        pair.way.heal();
        assert!(asking.await.unwrap().expect("an answer").is_none());
        assert_eq!(pair.new.raw.get("order").await.as_deref(), Some("somebody"));
    });
}

/// The answer to it is waited for no more.
#[test]
fn a_renewal_on_its_way_does_not_hold_up_the_next() {
    with_pair(|pair| async move {
        let provider = pair.provider(Duration::from_secs(20)).await;
        let guard = take(&provider, "order").await;
        pair.promote().await;
        pair.new.raw.ask::<u64>("DEL order").await;
        pair.hold_answers();
        let renewals = || pair.old.raw.scripts();
        let before = renewals().await;
        eventually("it is renewed", BOUND, || async {
            renewals().await > before
        })
        .await;
        let began = Instant::now();
        pair.switch();
        guard.lost().await;
        let took = began.elapsed();
        // It might take a quarter of the lease.
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

/// To connect to it may take a minute here.
#[test]
fn an_attempt_to_connect_to_the_old_primary_is_given_up() {
    with_pair(|pair| async move {
        let provider = pair.provider(LONG).await;
        let guard = take(&provider, "order").await;
        eventually("it is replicated", BOUND, || async {
            pair.new.raw.get("order").await.is_some()
        })
        .await;
        let connections = || pair.way.counts().connections.load(Ordering::Relaxed);
        let before = connections();
        pair.hold_answers();
        pair.way.reset();
        eventually("it connects again", BOUND, || async {
            connections() > before
        })
        .await;
        pair.promote().await;
        let began = Instant::now();
        pair.switch();
        take(&provider, "another").await.release().await.unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(!guard.is_lost());
        guard.release().await.unwrap();
    });
}
