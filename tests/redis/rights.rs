//! Users of the server and their rights.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockErrorKind, LockMode, LockProvider, RedisProvider};
use lock_tests::Probe;
use lock_tests::redis::{LEAST_PRIVILEGE, RedisOptions};

use crate::common::{
    BOUND, DEADLINE, LONG, Server, connected, enter, entering, lock, permits, request, take,
    try_enter,
};
use crate::dotnet::DotNet;

fn with_users<F>(test: impl FnOnce(Server) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    lock_tests::run(DEADLINE, async move {
        let options = RedisOptions::default()
            .acl("user default on nopass ~* &* +@all")
            .acl(&format!("user myapp on >very-secret {LEAST_PRIVILEGE}"));
        if let Some(server) = options.start() {
            test(Server::of(server).await).await;
        }
    });
}

fn url(server: &Server, password: &str) -> String {
    format!(
        "redis://myapp:{password}@127.0.0.1:{}?key_prefix=MyApp1:",
        server.process.port()
    )
}

#[test]
fn the_documented_rights_are_enough() {
    with_users(|server| async move {
        let url = url(&server, "very-secret");
        let lease = Duration::from_secs(2);
        let first = connected(RedisProvider::builder(&url).lease(lease)).await;
        let second = connected(RedisProvider::builder(&url).lease(lease)).await;
        let guard = take(&first, "order").await;
        tokio::time::sleep(lease * 2).await;
        assert!(!guard.is_lost(), "renewed");
        // Queues, refreshes its entry, and gives up.
        assert!(
            lock(&second, "order")
                .try_acquire_for(lease)
                .await
                .unwrap()
                .is_none()
        );
        let waiting = tokio::spawn(async move { take(&second, "order").await });
        server.raw.until_waiting("MyApp1:order", 1).await;
        guard.release().await.unwrap();
        let handed = waiting.await.unwrap();
        // Behind a foreign holder, with a waiter who leaves.
        server
            .raw
            .ask::<String>("SET MyApp1:foreign x PX 400")
            .await;
        take(&first, "foreign").await.release().await.unwrap();
        handed.release().await.unwrap();
        assert_eq!(server.raw.ask::<u64>("EXISTS MyApp1:lk1:fence").await, 1);
        let denied: Vec<redis::Value> = server.raw.ask("ACL LOG").await;
        assert!(
            denied
                .iter()
                .all(|entry| format!("{entry:?}").contains("client")
                    || format!("{entry:?}").contains("info")),
            "only what may be missing was denied: {denied:?}"
        );
    });
}

#[test]
fn the_documented_rights_are_enough_for_readers_writers_and_permits() {
    with_users(|server| async move {
        let raw = &server.raw;
        let url = url(&server, "very-secret");
        let lease = Duration::from_secs(600);
        let first = connected(RedisProvider::builder(&url).lease(lease)).await;
        let second = connected(RedisProvider::builder(&url).lease(lease)).await;
        let net = DotNet::new(raw.connection(), "MyApp1:order");
        let cases = [
            (
                LockMode::Read,
                LockMode::Write,
                "LLEN {MyApp1:order}:lk1:rw",
            ),
            (
                LockMode::Write,
                LockMode::Read,
                "LLEN {MyApp1:order}:lk1:rw",
            ),
            (
                permits(3, 3),
                permits(3, 2),
                "LLEN {MyApp1:order}:lk1:permits",
            ),
        ];
        for (held, wanted, queue) in cases {
            let grant = enter(&first, "order", held).await;
            assert!(try_enter(&second, "order", wanted).await.is_err());
            let (fickle, interest) = entering(&second, "order", wanted, LONG);
            raw.until(queue, 1).await;
            interest.abandon();
            assert!(fickle.await.unwrap().is_err());
            let (waiting, _) = entering(&second, "order", wanted, LONG);
            raw.until(queue, 1).await;
            first.renew(&grant).await.unwrap();
            if held == LockMode::Read {
                assert!(!first.may_share(&grant).await.unwrap());
            }
            let (again, _interest) = request("order", held, LONG, true);
            let provider = Arc::clone(&first);
            let passing = tokio::spawn(async move { provider.pass_on(&grant, &again).await });
            let waited = waiting.await.unwrap().unwrap();
            raw.until(queue, 1).await;
            second.release(&waited).await.unwrap();
            let grant = passing.await.unwrap().unwrap();
            match held {
                LockMode::Read => first.release(&grant).await.unwrap(),
                _ => {
                    let rest = Duration::from_millis(50);
                    first.release_later(&grant, rest).await.unwrap();
                }
            }
            // Behind a crashed holder, and a foreign one.
            let dying = request("order", wanted, Duration::from_millis(300), true).0;
            second.acquire(&dying).await.unwrap();
            match held {
                LockMode::Read => {}
                LockMode::Write => assert!(net.read("net", 300).await),
                _ => assert!(net.permit("net", 300, 3).await),
            }
            let last = enter(&first, "order", held).await;
            first.release(&last).await.unwrap();
        }
        // An upgrade that waits, is taken back, and is made.
        let plain = enter(&second, "order", LockMode::Read).await;
        let may = enter(&first, "order", LockMode::Upgradeable).await;
        first.renew(&may).await.unwrap();
        for gives_up in [true, false] {
            let (upgrade, interest) = request("order", LockMode::Write, LONG, true);
            let asked = first.upgrade(&may, &upgrade);
            let meanwhile = async {
                let mark = "EXISTS MyApp1:order.writer";
                raw.until(mark, 1).await;
                match gives_up {
                    true => interest.abandon(),
                    false => second.release(&plain).await.unwrap(),
                }
            };
            let (answer, ()) = tokio::join!(asked, meanwhile);
            match gives_up {
                true => assert!(answer.is_err()),
                false => first.release(&answer.unwrap()).await.unwrap(),
            }
        }
        let denied: Vec<redis::Value> = raw.ask("ACL LOG").await;
        let is_known = |entry: &redis::Value| {
            let entry = format!("{entry:?}");
            entry.contains("client") || entry.contains("info")
        };
        assert!(denied.iter().all(is_known), "{denied:?}");
    });
}

#[test]
fn without_the_right_to_count_listeners_waiters_of_all_modes_come() {
    with_users(|server| async move {
        let raw = &server.raw;
        raw.ask::<String>("ACL SETUSER myapp -pubsub").await;
        let url = url(&server, "very-secret");
        let lease = Duration::from_secs(600);
        let mut providers = Vec::new();
        for _ in 0..4 {
            providers.push(connected(RedisProvider::builder(&url).lease(lease)).await);
        }
        let cases = [
            (
                LockMode::Write,
                [LockMode::Read, LockMode::Read, LockMode::Write],
                "rw",
            ),
            (
                permits(2, 2),
                [permits(2, 1), permits(2, 1), permits(2, 2)],
                "permits",
            ),
        ];
        for (held, modes, queue) in cases {
            let queue = format!("LLEN {{MyApp1:order}}:lk1:{queue}");
            let grant = enter(&providers[0], "order", held).await;
            let mut waiting = Vec::new();
            for (place, mode) in modes.into_iter().enumerate() {
                waiting.push(entering(&providers[place + 1], "order", mode, LONG).0);
                raw.until(&queue, place as u64 + 1).await;
            }
            providers[0].release(&grant).await.unwrap();
            let last = waiting.pop().unwrap();
            let mut grants = Vec::new();
            for waiting in waiting {
                grants.push(waiting.await.unwrap().unwrap());
            }
            assert_eq!(raw.count(&queue).await, 1);
            for (place, grant) in grants.iter().enumerate() {
                providers[place + 1].release(grant).await.unwrap();
            }
            let last = last.await.unwrap().unwrap();
            providers[3].release(&last).await.unwrap();
        }
        let keys: Vec<String> = raw.ask("KEYS *").await;
        assert_eq!(keys, ["MyApp1:lk1:fence"]);
    });
}

/// The service's user has the rights that were enough once. Nobody is passed over, and a dead
/// waiter stops nobody.
#[test]
fn without_the_right_to_count_listeners_waiters_come_for_the_lock() {
    with_users(|server| async move {
        let raw = &server.raw;
        raw.ask::<String>("ACL SETUSER myapp -pubsub").await;
        let url = url(&server, "very-secret");
        // So long that nothing here is settled by its end.
        let lease = Duration::from_secs(600);
        let holder = connected(RedisProvider::builder(&url).lease(lease)).await;
        let next = connected(RedisProvider::builder(&url).lease(lease)).await;
        let last = connected(RedisProvider::builder(&url).lease(lease)).await;
        let guard = take(&holder, "order").await;
        let expires = server.clock().await / 1_000 + 600_000;
        raw.ask::<u64>(&format!(
            "RPUSH {{MyApp1:order}}:lk1:waiters \
             lk1:h:1:{:032x}|MyApp1:lk1:grants:gone|600000|1|{expires}",
            1
        ))
        .await;
        let second = tokio::spawn(async move { take(&next, "order").await });
        raw.until_waiting("MyApp1:order", 2).await;
        let third = tokio::spawn(async move { take(&last, "order").await });
        raw.until_waiting("MyApp1:order", 3).await;

        let mut before = guard.fencing_token();
        guard.release().await.unwrap();
        let second = second.await.unwrap();
        assert!(second.fencing_token() > before);
        assert!(!third.is_finished());
        assert_eq!(raw.waiting("MyApp1:order").await, 1, "in arrival order");
        before = second.fencing_token();
        second.release().await.unwrap();
        let third = third.await.unwrap();
        assert!(third.fencing_token() > before);
        third.release().await.unwrap();
        assert_eq!(raw.get("MyApp1:order").await, None);
        assert_eq!(raw.waiting("MyApp1:order").await, 0);
        let denied: Vec<redis::Value> = raw.ask("ACL LOG").await;
        assert!(format!("{denied:?}").contains("pubsub"), "{denied:?}");
    });
}

/// The lock is free for the waiter that is told to come for it, and for nobody else.
#[test]
fn nobody_comes_before_the_waiter_that_is_told_to_look() {
    with_users(|server| async move {
        let raw = &server.raw;
        raw.ask::<String>("ACL SETUSER myapp -pubsub").await;
        let url = url(&server, "very-secret");
        let lease = Duration::from_secs(600);
        let holder = connected(RedisProvider::builder(&url).lease(lease)).await;
        let other = connected(RedisProvider::builder(&url).lease(lease)).await;
        let mut frozen = Probe::start(
            Path::new(env!("CARGO_BIN_EXE_lock-probe")),
            &format!("{url}&lease=2s"),
            "order",
        );
        let guard = take(&holder, "order").await;
        frozen.tell("acquire");
        raw.until_waiting("MyApp1:order", 1).await;
        frozen.freeze();
        guard.release().await.unwrap();
        assert_eq!(raw.get("MyApp1:order").await, None);
        assert!(lock(&other, "order").try_acquire().await.unwrap().is_none());
        assert_eq!(raw.get("MyApp1:order").await, None);
        assert_eq!(raw.waiting("MyApp1:order").await, 1);
        frozen.thaw();
        frozen.expect("acquired", BOUND).await;
    });
}

/// A waiter that could not be told of its grant has it all the same, and nobody else does.
#[test]
fn without_the_right_to_publish_no_grant_goes_to_two() {
    with_users(|server| async move {
        let raw = &server.raw;
        let limited = connected(RedisProvider::builder(url(&server, "very-secret"))).await;
        let open = format!(
            "redis://127.0.0.1:{}?key_prefix=MyApp1:",
            server.process.port()
        );
        // Behind a holder of ours it looks every third of its lease.
        let waiter =
            connected(RedisProvider::builder(&open).lease(Duration::from_millis(1_500))).await;
        raw.ask::<String>("ACL SETUSER myapp -publish").await;

        for crashed in [true, false] {
            let held = match crashed {
                true => {
                    let holder = format!("SET MyApp1:order lk1:h:1:{:032x} PX 600000", 1);
                    raw.ask::<String>(&holder).await;
                    None
                }
                false => Some(take(&limited, "order").await),
            };
            let provider = waiter.clone();
            let waiting = tokio::spawn(async move { take(&provider, "order").await });
            raw.until_waiting("MyApp1:order", 1).await;
            match held {
                None => raw.ask::<()>("DEL MyApp1:order").await,
                Some(guard) => guard.release().await.unwrap(),
            }
            let taken = lock(&limited, "order").try_acquire().await.unwrap();
            assert!(taken.is_none(), "the waiter's turn comes first");
            let guard = waiting.await.unwrap();
            assert!(!guard.is_lost());
            guard.release().await.unwrap();
            assert_eq!(raw.get("MyApp1:order").await, None);
        }
        let denied: Vec<redis::Value> = raw.ask("ACL LOG").await;
        assert!(format!("{denied:?}").contains("publish"), "{denied:?}");
    });
}

#[test]
fn the_guide_names_the_same_rights() {
    let guide = include_str!("../../docs/providers/redis.md")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        guide.contains(LEAST_PRIVILEGE),
        "the guide does not say: {LEAST_PRIVILEGE}"
    );
}

#[test]
fn a_wrong_password_is_said_and_not_shown() {
    with_users(|server| async move {
        let error = RedisProvider::connect(url(&server, "not-the-secret"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("password"), "{error}");
        assert!(!format!("{error} {error:?} {error:#?}").contains("not-the-secret"));
        let right = RedisProvider::builder(url(&server, "not-the-secret")).password("very-secret");
        let provider = connected(right).await;
        assert!(!format!("{provider:?}").contains("secret"));
    });
}

#[test]
fn a_missing_password_is_said() {
    lock_tests::run(DEADLINE, async {
        let Some(server) = RedisOptions::default()
            .config("requirepass very-secret")
            .start()
        else {
            return;
        };
        let error = RedisProvider::connect(server.url()).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("password"), "{error}");
        let provider =
            connected(RedisProvider::builder(server.url()).password("very-secret")).await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn another_database_needs_one_more_right() {
    with_users(|server| async move {
        let port = server.process.port();
        let url = format!("redis://myapp:very-secret@127.0.0.1:{port}/1?key_prefix=MyApp1:");
        let error = RedisProvider::connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("database"), "{error}");
        server.raw.ask::<String>("ACL SETUSER myapp +select").await;
        let provider = connected(RedisProvider::builder(&url)).await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn a_user_may_have_an_empty_password() {
    with_users(|server| async move {
        let port = server.process.port();
        server
            .raw
            .ask::<String>("ACL SETUSER open on nopass resetchannels &* ~* +@all")
            .await;
        let url = format!("redis://open:@127.0.0.1:{port}");
        let provider = connected(RedisProvider::builder(&url)).await;
        take(&provider, "order").await.release().await.unwrap();
        let clients: String = server.raw.ask("CLIENT LIST").await;
        assert!(clients.contains("user=open"), "{clients}");
    });
}

#[test]
fn the_right_to_ask_for_the_servers_age_is_missed_only_where_it_is_needed() {
    with_users(|server| async move {
        let builder = || RedisProvider::builder(url(&server, "very-secret"));
        connected(builder()).await;
        let delayed = builder().restart_delay(Duration::from_secs(1));
        let error = delayed.connect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("restart_delay") && text.contains("info"),
            "{text}"
        );
        server.raw.ask::<String>("ACL SETUSER myapp +info").await;
        connected(builder().restart_delay(Duration::from_secs(1))).await;
    });
}

#[test]
fn a_missing_channel_is_said_at_once() {
    with_users(|server| async move {
        server
            .raw
            .ask::<String>("ACL SETUSER myapp resetchannels")
            .await;
        let error = RedisProvider::connect(url(&server, "very-secret"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("channel"), "{error}");
    });
}

#[test]
fn rights_taken_away_are_an_error_and_no_storm() {
    with_users(|server| async move {
        let provider = connected(RedisProvider::builder(url(&server, "very-secret"))).await;
        take(&provider, "order").await.release().await.unwrap();
        server.raw.ask::<String>("ACL SETUSER myapp -set").await;
        let before = server.raw.info("total_connections_received").await;
        let commands = server.raw.info("total_commands_processed").await;
        for _ in 0..5 {
            let error = lock(&provider, "order")
                .acquire_for(BOUND)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        }
        assert_eq!(server.raw.info("total_connections_received").await, before);
        let commands = server.raw.info("total_commands_processed").await - commands;
        assert!(commands < 100, "{commands}");
        server.raw.ask::<String>("ACL SETUSER myapp +set").await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn refused_renewals_are_a_loss_and_no_storm() {
    with_users(|server| async move {
        let lease = Duration::from_millis(900);
        let builder = RedisProvider::builder(url(&server, "very-secret")).lease(lease);
        let provider = connected(builder).await;
        let guard = take(&provider, "order").await;
        server.raw.ask::<String>("ACL SETUSER myapp -pexpire").await;
        let commands = server.raw.info("total_commands_processed").await;
        guard.lost().await;
        let commands = server.raw.info("total_commands_processed").await - commands;
        assert!(commands < 200, "{commands}");
    });
}

#[test]
fn a_deleted_user_is_an_error_and_no_storm() {
    with_users(|server| async move {
        let provider = connected(RedisProvider::builder(url(&server, "very-secret"))).await;
        take(&provider, "order").await.release().await.unwrap();
        let before = server.raw.info("total_connections_received").await;
        server.raw.ask::<u8>("ACL DELUSER myapp").await;
        for _ in 0..20 {
            let error = lock(&provider, "order")
                .acquire_for(BOUND)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        }
        assert!(server.raw.info("total_connections_received").await - before <= 2);
    });
}
