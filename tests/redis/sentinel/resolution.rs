//! Which server the sentinels' words lead to. The test plays the sentinels; the servers are real.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockProvider, RedisProvider, RedisProviderBuilder};
use lock_tests::{ClosedPort, eventually};

use super::service::{SOON, until_heard};
use super::stub::{Says, Stub};
use crate::common::{BOUND, LONG, Server, connected, lock, take, with_server};

pub(crate) async fn another() -> Server {
    let another = lock_tests::RedisServer::start_plain().expect("as the first");
    Server::of(another).await
}

pub(crate) fn of(stubs: &[&Stub]) -> RedisProviderBuilder {
    let hosts = stubs.iter().map(|stub| format!("127.0.0.1:{}", stub.port));
    RedisProvider::sentinel("orders", hosts).lease(LONG)
}

/// Says which of two servers the provider keeps its locks on.
pub(crate) async fn is_on(provider: &Arc<RedisProvider>, server: &Server) -> bool {
    let guard = take(provider, "where").await;
    let is_here = server.raw.get("where").await.is_some();
    // It is lost if the provider moves meanwhile.
    let _ = guard.release().await;
    is_here
}

#[test]
fn the_newest_configuration_of_a_majority_is_taken() {
    with_server(|old| async move {
        let new = another().await;
        let [old_port, new_port] = [&old, &new].map(|it| it.process.port());
        let stale = Stub::start(Says::primary(old_port, 3)).await;
        let knowing = Stub::start(Says::primary(new_port, 4)).await;
        let slow = Stub::start(Says {
            delay: Duration::from_secs(60),
            ..Says::primary(old_port, 3)
        })
        .await;
        let began = Instant::now();
        let provider = connected(of(&[&stale, &slow, &knowing])).await;
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "of three, two are enough"
        );
        assert!(is_on(&provider, &new).await);
        assert!(
            provider
                .describe()
                .contains("orders of sentinels 127.0.0.1:")
        );
    });
}

#[test]
fn without_a_majority_the_rest_is_waited_for_a_moment() {
    with_server(|server| async move {
        let port = server.process.port();
        let says = || Says::primary(port, 3);
        let first = Stub::start(says()).await;
        let delay = Duration::from_secs(60);
        let slow = Stub::start(Says { delay, ..says() }).await;
        let began = Instant::now();
        let provider = connected(of(&[
            &slow,
            &first,
            &Stub::start(Says { delay, ..says() }).await,
        ]))
        .await;
        let took = began.elapsed();
        let moment = Duration::from_millis(250);
        assert!(took >= moment && took < moment * 4, "{took:?}");
        assert!(is_on(&provider, &server).await);
    });
}

#[test]
fn other_sentinels_are_found_through_one() {
    with_server(|old| async move {
        let new = another().await;
        let [old_port, new_port] = [&old, &new].map(|it| it.process.port());
        let found = Stub::start(Says::primary(old_port, 0)).await;
        let listed = Stub::start(Says {
            others: vec![found.port],
            ..Says::primary(old_port, 0)
        })
        .await;
        let provider = connected(of(&[&listed])).await;
        assert!(is_on(&provider, &old).await);
        until_heard(&[&listed, &found], 1).await;
        // Only the other one knows of the failover.
        found.say(|says| *says = Says::primary(new_port, 1));
        found.switch(old_port, new_port);
        eventually("it has moved", BOUND, || is_on(&provider, &new)).await;
    });
}

/// The old primary is there still, and takes writes.
#[test]
fn a_switch_is_followed_at_once_and_a_lost_lock_is_told() {
    with_server(|old| async move {
        let new = another().await;
        let [old_port, new_port] = [&old, &new].map(|it| it.process.port());
        let stubs = [(); 3].map(|()| Stub::start(Says::primary(old_port, 0)));
        let [first, second, third] = stubs;
        let (first, second, third) = (first.await, second.await, third.await);
        let stubs = [&first, &second, &third];
        let provider = connected(of(&stubs)).await;
        until_heard(&stubs, 1).await;
        let mut quickest = Duration::MAX;
        let mut servers = [(&old, old_port), (&new, new_port)];
        for epoch in 1..=5 {
            let [(before, from), (after, to)] = servers;
            let name = format!("order:{epoch}");
            let guard = take(&provider, &name).await;
            assert!(before.raw.get(&name).await.is_some());
            // The others are late, and say for a while what was true before.
            second.say(|says| *says = Says::primary(to, epoch));
            let began = Instant::now();
            second.switch(from, to);
            guard.lost().await;
            quickest = quickest.min(began.elapsed());
            drop(guard);
            assert!(is_on(&provider, after).await);
            for late in [&first, &third] {
                late.say(|says| *says = Says::primary(to, epoch));
                late.switch(from, to);
            }
            assert!(is_on(&provider, after).await);
            servers.reverse();
        }
        println!("told {quickest:?} after the message");
        // On a loaded machine one of five may take longer.
        assert!(quickest < SOON, "{quickest:?}");
    });
}

/// Sentinels that have been cut off name a primary that is one no more.
#[test]
fn an_older_configuration_is_never_taken_again() {
    with_server(|old| async move {
        let new = another().await;
        let [old_port, new_port] = [&old, &new].map(|it| it.process.port());
        let stub = Stub::start(Says::primary(new_port, 7)).await;
        let provider = connected(of(&[&stub])).await;
        stub.say(|says| *says = Says::primary(old_port, 6));
        new.raw.ask::<u64>("CLIENT KILL TYPE pubsub").await;
        let asked = stub.asked();
        let error = lock(&provider, "order").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(
            error.to_string().contains("configuration 6, and 7"),
            "{error}"
        );
        assert!(stub.asked() > asked);
        assert_eq!(
            old.raw.get("lk1:fence").await,
            None,
            "it was not connected to"
        );
        stub.say(|says| *says = Says::primary(old_port, 8));
        eventually("it is on the newest", BOUND, || async {
            lock(&provider, "order").try_acquire().await.is_ok()
        })
        .await;
        assert!(is_on(&provider, &old).await);
    });
}

/// Such a message has been on its way for long: the sentinel itself knows better.
#[test]
fn an_old_message_moves_nobody() {
    with_server(|server| async move {
        let gone = another().await;
        let port = server.process.port();
        let stub = Stub::start(Says::primary(port, 2)).await;
        let provider = connected(of(&[&stub])).await;
        until_heard(&[&stub], 1).await;
        let guard = take(&provider, "order").await;
        let asked = stub.asked();
        stub.switch(port, gone.process.port());
        eventually("it is asked", BOUND, || async { stub.asked() > asked }).await;
        assert!(is_on(&provider, &server).await);
        assert!(!guard.is_lost());
        assert_eq!(gone.raw.get("lk1:fence").await, None);
        guard.release().await.unwrap();
    });
}

#[test]
fn a_message_that_was_lost_is_made_up_for() {
    with_server(|old| async move {
        let new = another().await;
        let [old_port, new_port] = [&old, &new].map(|it| it.process.port());
        let stub = Stub::start(Says::primary(old_port, 0)).await;
        let provider = connected(of(&[&stub])).await;
        let guard = take(&provider, "order").await;
        // Three questions for the start, and three when it is listened to.
        eventually("it is asked again", BOUND, || async { stub.asked() == 6 }).await;
        let began = Instant::now();
        stub.say(|says| *says = Says::primary(new_port, 1));
        guard.lost().await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(12), "{took:?}");
        assert!(is_on(&provider, &new).await);
    });
}

#[test]
fn a_replica_is_not_taken_for_the_primary() {
    with_server(|server| async move {
        let replica = another().await;
        let _link = crate::common::follow(&server, &replica).await;
        let stub = Stub::start(Says::primary(replica.process.port(), 0)).await;
        let error = of(&[&stub]).connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        let text = error.to_string();
        let named = format!("server `127.0.0.1:{}`", replica.process.port());
        assert!(
            text.contains("service `orders`: ") && text.contains(&named),
            "{text}"
        );
        assert!(text.contains("is a replica"), "{text}");
    });
}

#[test]
fn a_service_that_no_sentinel_knows_is_said() {
    with_server(|server| async move {
        let port = server.process.port();
        let others = Says {
            service: "other",
            ..Says::primary(port, 0)
        };
        let [one, two] = [others.clone(), others].map(Stub::start);
        let (one, two) = (one.await, two.await);
        let error = of(&[&one, &two]).connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(
            error.to_string().contains("knows the service `orders`"),
            "{error}"
        );
        // One that knows it is believed.
        let knowing = Stub::start(Says::primary(port, 0)).await;
        let provider = connected(of(&[&one, &knowing, &two])).await;
        assert!(is_on(&provider, &server).await);
    });
}

#[test]
fn sentinels_that_do_not_answer_are_counted() {
    lock_tests::run(BOUND, async {
        let [one, two] = [ClosedPort::new(), ClosedPort::new()];
        let hosts = [one.address(), two.address()].map(|it| it.to_string());
        let connecting = RedisProvider::sentinel("orders", hosts).connect();
        let error = connecting.await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        let text = error.to_string();
        assert!(text.contains("none of the 2 sentinels answers"), "{text}");
        assert!(text.contains("sentinel `127.0.0.1:"), "{text}");
    });
}

#[test]
fn a_server_is_no_sentinel_and_a_sentinel_no_server() {
    with_server(|server| async move {
        let port = server.process.port();
        let connecting = RedisProvider::sentinel("orders", [format!("127.0.0.1:{port}")]).connect();
        let error = connecting.await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("it is no sentinel"), "{error}");
        let stub = Stub::start(Says::primary(port, 0)).await;
        let url = format!("redis://:secret@127.0.0.1:{}", stub.port);
        let error = RedisProvider::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Unsupported, "{error}");
        let right = format!("redis-sentinel://127.0.0.1:{}?service=", stub.port);
        assert!(error.to_string().contains(&right), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    });
}

/// The others have not heard of it yet, and the one that has takes its time to say more.
#[test]
fn the_old_primary_is_not_taken_again_while_the_sender_of_a_message_is_slow() {
    with_server(|old| async move {
        let new = another().await;
        let [old_port, new_port] = [&old, &new].map(|it| it.process.port());
        let stubs = [(); 3].map(|()| Stub::start(Says::primary(old_port, 0)));
        let [first, second, third] = stubs;
        let (first, second, third) = (first.await, second.await, third.await);
        let stubs = [&first, &second, &third];
        let provider = connected(of(&stubs)).await;
        // Three questions for the start, and three when it is listened to.
        eventually("all are asked", BOUND, || async {
            stubs.iter().all(|stub| stub.asked() == 6)
        })
        .await;
        second.say(|says| {
            *says = Says {
                delay: Duration::from_millis(500),
                ..Says::primary(new_port, 1)
            };
        });
        second.switch(old_port, new_port);
        eventually("it has left", BOUND, || async {
            lock(&provider, "where").try_acquire().await.is_err()
        })
        .await;
        eventually("it has moved", BOUND, || async {
            let Ok(Some(guard)) = lock(&provider, "where").try_acquire().await else {
                return false;
            };
            assert_eq!(old.raw.get("where").await, None, "it has gone back");
            guard.release().await.is_ok()
        })
        .await;
        assert!(is_on(&provider, &new).await);
    });
}
