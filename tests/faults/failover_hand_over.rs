//! Hand-over across a failover: some clients listen to the server that grants, and others
//! elsewhere.

use std::time::Duration;

use lock_tests::eventually;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::common::{BOUND, DEADLINE, Raw, Server, connected, lock, take};
use crate::server_stats::calls;
use crate::servers::{Servers, with_servers};

/// A client of any kind that listens to a channel.
struct Listener {
    heard: UnboundedReceiver<PushInfo>,
    _connection: MultiplexedConnection,
}

impl Listener {
    async fn of(server: &Server, channel: &str) -> Self {
        let (sender, heard) = unbounded_channel();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let url = format!("{}?protocol=resp3", server.process.url());
        let client = redis::Client::open(url).unwrap();
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.unwrap();
        connection.subscribe(channel).await.unwrap();
        Self {
            heard,
            _connection: connection,
        }
    }

    /// Waits for the next message of the channel.
    async fn hears(&mut self) -> String {
        loop {
            let push = tokio::time::timeout(BOUND, self.heard.recv()).await;
            let push = push.expect("a message").expect("the connection lives");
            if push.kind == PushKind::Message {
                return redis::from_redis_value(push.data[1].clone()).unwrap();
            }
        }
    }
}

async fn listeners(raw: &Raw, channel: &str) -> u64 {
    let answer: (String, u64) = raw.ask(&format!("PUBSUB NUMSUB {channel}")).await;
    answer.1
}

/// The old server follows the new one, and so passes on what that one grants. Its listeners do not
/// count.
#[test]
fn a_waiter_that_listens_to_the_old_server_is_granted_nothing_and_comes_to_the_new_one() {
    with_servers(|servers| async move {
        let (guard, waiting) = servers.hold_and_wait().await;
        servers.replicated().await;
        let (old, new) = (&servers.old.raw, &servers.new.raw);
        let entry: String = new.ask("LINDEX {order}:lk1:waiters 0").await;
        let channel = entry.split('|').nth(1).expect("an entry names a channel");
        servers
            .fail_over(&[&servers.holders, &servers.waiters])
            .await;
        eventually("the old one follows", BOUND, || async {
            let state: String = old.ask("INFO replication").await;
            state.contains("master_link_status:up")
        })
        .await;
        let published = calls(old, "publish").await;
        let before = guard.fencing_token();
        guard.release().await.unwrap();
        assert_eq!(new.get("order").await, None, "nobody listens there");
        // The old one has heard of everything that came before this.
        new.ask::<String>("SET mark x").await;
        assert_eq!(new.ask::<u64>("WAIT 1 10000").await, 1);
        assert_eq!(listeners(old, channel).await, 1);
        assert_eq!(calls(old, "publish").await, published);

        let alone = take(&servers.new.provider().await, "order").await;
        assert!(alone.fencing_token() > before);
        // It waits here now, so it cannot believe to have the lock.
        new.until_waiting("order", 1).await;
        assert!(!waiting.is_finished() && !alone.is_lost());
        let before = alone.fencing_token();
        alone.release().await.unwrap();
        let last = waiting.await.unwrap();
        assert!(last.fencing_token() > before);
        last.release().await.unwrap();
    });
}

#[test]
fn a_listener_at_a_replica_makes_no_waiter_pass_for_alive() {
    with_servers(|servers| async move {
        let Servers {
            old: primary, new, ..
        } = &servers;
        let owner = format!("lk1:host:1:{:032x}", 1);
        let expires = primary.clock().await / 1_000 + 600_000;
        let queue =
            format!("RPUSH {{order}}:lk1:waiters {owner}|lk1:grants:channel|600000|1|{expires}");
        let mut at_replica = Listener::of(new, "lk1:grants:channel").await;
        let provider = primary.provider().await;

        let guard = take(&provider, "order").await;
        primary.raw.ask::<u64>(&queue).await;
        guard.release().await.unwrap();
        assert_eq!(primary.raw.get("order").await, None, "nobody is alive");
        assert_eq!(primary.raw.waiting("order").await, 0);
        primary
            .raw
            .ask::<u64>("PUBLISH lk1:grants:channel mark")
            .await;
        assert_eq!(at_replica.hears().await, "mark", "and nothing before it");

        // With a listener at the primary, the one at the replica hears what is true.
        let mut at_primary = Listener::of(primary, "lk1:grants:channel").await;
        let guard = take(&provider, "order").await;
        let token = guard.fencing_token().expect("a token").get();
        primary.raw.ask::<u64>(&queue).await;
        guard.release().await.unwrap();
        assert_eq!(primary.raw.get("order").await, Some(owner.clone()));
        let grant = at_primary.hears().await;
        assert_eq!(at_replica.hears().await, grant);
        let parts: Vec<_> = grant.split('|').collect();
        assert_eq!((parts[0], parts[2]), (owner.as_str(), "1"));
        assert!(parts[1].parse::<u64>().unwrap() > token, "{grant}");
    });
}

/// The old server is frozen and replaced. It goes on later, on connections that were given up and
/// are still open. What it grants then, the new server may have granted to somebody else.
#[test]
fn a_server_that_is_not_asked_any_more_grants_nothing() {
    with_servers(|servers| async move {
        let Servers { old, new, .. } = &servers;
        // Whose lock it is not is looked at often; with this holder's, a grant is waited for.
        let holder = format!("lk1:host:1:{:032x} PX 600000", 1);
        for name in ["order", "other"] {
            let set = format!("SET {name} {holder}");
            old.raw.ask::<String>(&set).await;
        }
        let client = servers.client(&servers.waiters);
        let client = client.lease(Duration::from_secs(60));
        let client = connected(client.response_timeout(Duration::from_secs(30))).await;
        let held = lock(&client, "held").lease(Duration::from_secs(6));
        let _held = held.acquire().await.unwrap();
        let waiting = |name: &'static str| {
            let client = client.clone();
            tokio::spawn(async move { lock(&client, name).acquire_for(DEADLINE).await })
        };
        let (order, other) = (waiting("order"), waiting("other"));
        old.raw.until_waiting("order", 1).await;
        old.raw.until_waiting("other", 1).await;
        new.raw.until_waiting("order", 1).await;

        new.raw.ask::<String>("REPLICAOF NO ONE").await;
        servers.waiters.lead_to(new.process.port());
        old.process.process().freeze();
        // Its leaving the queue has to be answered, on a connection on which a renewal is not.
        other.abort();
        let free = waiting("free");
        let entry =
            async || -> Option<String> { new.raw.ask("LINDEX {order}:lk1:waiters 0").await };
        let before = entry().await;
        eventually("it waits at the new one", BOUND, || async {
            let now = entry().await;
            now.is_some() && now != before
        })
        .await;
        let entry = entry().await.unwrap();
        let (owner, rest) = entry.split_once('|').unwrap();
        let channel = rest.split('|').next().unwrap();
        let token = new.clock().await + 60_000_000;
        let raw = old.raw.clone();
        let publish = format!("PUBLISH {channel} {owner}|{token}|1");
        let published = tokio::spawn(async move { raw.ask::<u64>(&publish).await });
        old.process.process().thaw();
        assert_eq!(published.await.unwrap(), 1, "the connection is there");
        // Until it would have read the message.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!order.is_finished(), "it believes the old one");
        assert_eq!(new.raw.waiting("order").await, 1);
        order.abort();
        // What it answers to a request that it had all the time counts as little.
        let free = free.await.unwrap().unwrap();
        assert!(old.raw.get("free").await.is_some(), "it has granted it");
        assert!(
            new.raw.get("free").await.is_some(),
            "and so has the new one"
        );
        free.release().await.unwrap();
    });
}
