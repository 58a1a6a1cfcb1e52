//! Acquisitions, releases and hand-overs of many locks in one request: each has the outcome that it
//! would have alone.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_runtime::{
    DistributedLock, LockError, LockErrorKind, LockGuard, LockProvider, RedisProvider,
};
use lock_tests::poll_once;
use lock_tests::redis::{LEAST_PRIVILEGE, RedisOptions};

use crate::common::{BOUND, DEADLINE, Raw, Server, connected, lock, take, with_server};
use crate::together::{FEW, MANY, Together, asked, ended, held, long, names, tokens};

#[test]
fn many_locks_are_taken_and_released_in_few_requests() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let mut last = 0;
        for _ in 0..3 {
            let before = asked(&server.raw).await;
            let guards = together.take_all(&names).await;
            let tokens = tokens(&guards);
            assert!(tokens.iter().all(|token| *token > last), "they grow");
            assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), MANY);
            last = *tokens.iter().max().expect("there are some");
            assert!(last < server.clock().await, "and stay below the clock");
            assert_eq!(held(&server.raw, &names).await, MANY);
            let owners: Vec<String> = server.raw.ask(&format!("MGET {}", names.join(" "))).await;
            let owners: HashSet<_> = owners.into_iter().collect();
            assert_eq!(owners.len(), MANY, "an owner each");
            together.release_all(guards).await;
            assert_eq!(held(&server.raw, &names).await, 0);
            let asked = asked(&server.raw).await - before;
            assert!(asked <= FEW, "{asked} requests");
        }
        let keys: Vec<String> = server.raw.ask("KEYS *").await;
        assert_eq!(keys, ["lk1:fence"]);
        assert!(server.raw.ask::<i64>("PTTL lk1:fence").await > 0);
    });
}

/// Acquisitions of every kind, beside each other.
#[test]
fn each_call_of_a_group_has_its_own_outcome() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let elsewhere = server.provider_with_long_lease().await;
        let clone = Arc::new((*together.provider).clone());
        let names = names(MANY);
        let lease = |number: usize| Duration::from_secs(100 + number as u64);
        let mut theirs = Vec::new();
        for (number, name) in names.iter().enumerate() {
            match number % 8 {
                // Foreign.
                5 => assert!(server.raw.set_nx(name, "foreign").await),
                6 | 7 => theirs.push(take(&elsewhere, name).await),
                _ => {}
            }
        }
        let calls = names.iter().enumerate().map(|(number, name)| {
            let provider = if number % 2 == 0 {
                &together.provider
            } else {
                &clone
            };
            let lock =
                DistributedLock::on(provider.clone() as Arc<dyn LockProvider>, name.as_str());
            let lock = match number % 8 {
                0..=2 => lock.lease(lease(number)),
                _ => lock,
            };
            async move {
                match number % 8 {
                    0 | 3 | 5 | 6 => lock.try_acquire().await,
                    7 => lock.try_acquire_for(Duration::from_millis(300)).await,
                    _ => lock.acquire_for(BOUND).await.map(Some),
                }
            }
        });
        let guards = together.all(calls.collect()).await;
        let mut granted = Vec::new();
        for (number, guard) in guards.into_iter().enumerate() {
            let guard = guard.expect("no error");
            let name = &names[number];
            let expected = number % 8 < 5;
            assert_eq!(guard.is_some(), expected, "{number}");
            let left: i64 = server.raw.ask(&format!("PTTL {name}")).await;
            let left = Duration::from_millis(left.unsigned_abs());
            match number % 8 {
                0..=2 => assert!(left <= lease(number) && left > lease(number) - BOUND * 2),
                3 | 4 | 6 | 7 => assert!(left > Duration::from_secs(500), "{left:?}"),
                _ => assert!(left <= Duration::from_secs(60)),
            }
            assert_eq!(server.raw.waiting(name).await, 0, "whoever waited has left");
            granted.extend(guard);
        }
        together.release_all(granted).await;
        for guard in theirs {
            guard.release().await.unwrap();
        }
        for name in &names {
            let left = server.raw.get(name).await;
            assert_eq!(left.is_some(), left.as_deref() == Some("foreign"));
        }
    });
}

#[test]
fn a_min_hold_is_kept_beside_releases_in_a_group() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let hold = Duration::from_secs(3);
        let calls = names.iter().enumerate().map(|(number, name)| {
            let lock = lock(&together.provider, name);
            let lock = if number % 3 == 0 {
                lock.min_hold(hold)
            } else {
                lock
            };
            async move { lock.acquire_for(BOUND).await }
        });
        let guards: Result<Vec<_>, _> = together.all(calls.collect()).await.into_iter().collect();
        let before = asked(&server.raw).await;
        let released = together.begin(
            guards
                .unwrap()
                .into_iter()
                .map(LockGuard::release)
                .collect(),
        );
        let released = released.await;
        together.proxy.heal();
        for released in ended(released).await {
            released.unwrap();
        }
        let kept = MANY.div_ceil(3);
        assert_eq!(held(&server.raw, &names).await, kept);
        let asked = asked(&server.raw).await - before;
        assert!(asked <= FEW, "{asked} requests");
        lock_tests::eventually("the rest ends by itself", BOUND, || async {
            held(&server.raw, &names).await == 0
        })
        .await;
    });
}

#[test]
fn releases_in_a_group_hand_over_in_order() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let others = [
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        ];
        let names = names(MANY);
        let guards = together.take_all(&names).await;
        let mut highest = tokens(&guards);
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        // Every third has two processes that wait.
        for (place, other) in others.iter().enumerate() {
            for name in names.iter().step_by(3) {
                let (provider, served) = (other.clone(), served.clone());
                let name = name.clone();
                waiting.push(tokio::spawn(async move {
                    let guard = take(&provider, &name).await;
                    let token = guard.fencing_token().expect("a token").get();
                    served.lock().unwrap().push((name, place, token));
                    guard.release().await.unwrap();
                }));
            }
            for name in names.iter().step_by(3) {
                server.raw.until_waiting(name, place + 1).await;
            }
        }
        let released = together
            .begin(guards.into_iter().map(LockGuard::release).collect())
            .await;
        together.proxy.heal();
        for released in ended(released).await {
            released.unwrap();
        }
        ended(waiting).await;
        let served = std::mem::take(&mut *served.lock().unwrap());
        for (number, name) in names.iter().enumerate() {
            let mut of_it = served.iter().filter(|(served, ..)| served == name);
            if number % 3 == 0 {
                for place in 0..2 {
                    let (_, came, token) = of_it.next().expect("both are served");
                    assert_eq!(*came, place, "in order");
                    assert!(*token > highest[number], "tokens grow");
                    highest[number] = *token;
                }
            }
            assert_eq!(of_it.next(), None);
        }
        assert_eq!(held(&server.raw, &names).await, 0);
    });
}

/// A lock whose grant serves no more waiters of its process goes by the server to the next one.
#[test]
fn locks_are_passed_on_in_a_group() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let other = server.provider_with_long_lease().await;
        let names = names(MANY);
        let guards = together.take_all(&names).await;
        let first = tokens(&guards);
        let mut waiting = Vec::new();
        for name in &names {
            let mut next = Box::pin(together.take(name));
            assert!(poll_once(next.as_mut()).await.is_none());
            waiting.push(tokio::spawn(next));
        }
        // For every third another process waits too, and comes first.
        let theirs: Vec<_> = names
            .iter()
            .step_by(3)
            .map(|name| {
                let (other, name) = (other.clone(), name.clone());
                tokio::spawn(async move { take(&other, &name).await })
            })
            .collect();
        for name in names.iter().step_by(3) {
            server.raw.until_waiting(name, 1).await;
        }
        let before = asked(&server.raw).await;
        let owners: Vec<String> = server.raw.ask(&format!("MGET {}", names.join(" "))).await;
        for released in together
            .all(guards.into_iter().map(LockGuard::release).collect())
            .await
        {
            released.unwrap();
        }
        let theirs = ended(theirs).await;
        let asked = asked(&server.raw).await - before;
        assert!(asked <= 2 * FEW, "{asked} requests");
        for (guard, place) in theirs.iter().zip((0..MANY).step_by(3)) {
            let token = guard.fencing_token().expect("a token").get();
            assert!(token > first[place]);
            server.raw.until_waiting(&names[place], 1).await;
        }
        for (at, name) in names.iter().enumerate() {
            let owner = server.raw.get(name).await.expect("it is held");
            assert_ne!(owner, owners[at], "the next owner has it");
        }
        for guard in theirs {
            guard.release().await.unwrap();
        }
        let ours: Result<Vec<_>, _> = ended(waiting).await.into_iter().collect();
        let ours = ours.unwrap();
        for (token, first) in tokens(&ours).iter().zip(&first) {
            assert!(token > first);
        }
        together.release_all(ours).await;
        assert_eq!(held(&server.raw, &names).await, 0);
    });
}

/// What stands under the keys of one lock harms that one alone.
#[test]
fn what_is_no_lock_fails_alone() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        for bad in [
            "HSET n20 field value",
            "SET n21 done",
            "SET n22 foreign PX 60000",
            "SET {n22}:lk1:waiters text",
            "SET {n23}:lk1:waiters text",
            "HSET {n24}:lk1:waiters field value",
        ] {
            server.raw.ask::<redis::Value>(bad).await;
        }
        for waits in [false, true] {
            let calls = names.iter().map(|name| {
                let lock = lock(&together.provider, name);
                async move {
                    match waits {
                        true => lock.acquire_for(BOUND).await.map(Some),
                        false => lock.try_acquire().await,
                    }
                }
            });
            let answers = together.all(calls.collect()).await;
            let mut guards = Vec::new();
            for (number, answer) in answers.into_iter().enumerate() {
                let expected = match number {
                    20 => "the key `n20` holds a value of another type than a lock has",
                    21 => "the key `n21` holds a value that never expires; no lock does",
                    22 if waits => "the key `{n22}:lk1:waiters` holds a value that is no queue",
                    22 => {
                        assert!(answer.unwrap().is_none(), "it is held");
                        continue;
                    }
                    _ => {
                        guards.push(answer.unwrap().expect("it is free"));
                        continue;
                    }
                };
                let error = answer.map(drop).unwrap_err();
                assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
                assert!(error.to_string().contains(expected), "{error}");
            }
            assert_eq!(guards.len(), MANY - 3);
            together.release_all(guards).await;
        }
        assert_eq!(held(&server.raw, &names).await, 3, "what is theirs stays");
    });
}

/// Somebody puts something else in the place of locks that are held.
#[test]
fn what_has_replaced_a_lock_is_lost_alone() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let guards = together.take_all(&names).await;
        server.raw.ask::<u8>("DEL n20 n30").await;
        server.raw.ask::<u8>("HSET n20 field value").await;
        server.raw.ask::<String>("SET n21 foreign PX 60000").await;
        let released = together.all(guards.into_iter().map(LockGuard::release).collect());
        for (number, released) in released.await.into_iter().enumerate() {
            match number {
                20 | 21 | 30 => {
                    assert_eq!(
                        released.unwrap_err().kind(),
                        LockErrorKind::Lost,
                        "{number}"
                    );
                }
                _ => released.unwrap(),
            }
        }
        assert_eq!(held(&server.raw, &names).await, 2, "what is theirs stays");
    });
}

#[test]
fn tokens_of_a_group_grow_whatever_the_counter_is() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let ahead = server.clock().await + 60_000_000;
        let mut last = 0;
        for counter in [
            "DEL lk1:fence".to_owned(),
            "HSET lk1:fence field value".to_owned(),
            "RPUSH lk1:fence value".to_owned(),
            "SET lk1:fence text".to_owned(),
            "SET lk1:fence zzzzzzzzzzzzzzzz".to_owned(),
            "SET lk1:fence !!!!!!!!!!!!!!!!".to_owned(),
            "SET lk1:fence 17".to_owned(),
            format!("SET lk1:fence {ahead}"),
            "PING".to_owned(),
        ] {
            if counter != "PING" {
                server.raw.ask::<u8>("DEL lk1:fence").await;
            }
            server.raw.ask::<redis::Value>(&counter).await;
            let guards = together.take_all(&names).await;
            let tokens = tokens(&guards);
            assert!(tokens.iter().all(|token| *token > last), "after {counter}");
            let distinct: HashSet<_> = tokens.iter().collect();
            assert_eq!(distinct.len(), MANY, "after {counter}");
            last = *tokens.iter().max().expect("there are some");
            together.release_all(guards).await;
            let counter: u64 = server.raw.ask("GET lk1:fence").await;
            assert!(counter >= last);
        }
        assert!(last > ahead, "it goes on from there");
    });
}

/// A server that has no memory left refuses what is new, and takes what gives memory back.
#[test]
fn a_full_server_refuses_acquisitions_and_takes_the_releases_of_the_same_group() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let guards = together.take_all(&names[..MANY / 2]).await;
        let mut guards: Vec<_> = guards.into_iter().map(Some).collect();
        guards.resize_with(MANY, || None);
        server.raw.ask::<String>("CONFIG SET maxmemory 1").await;
        // They take turns, so that every group has some of both.
        let mut order: Vec<_> = guards.into_iter().zip(&names).collect();
        order.sort_by_key(|(_, name)| name.as_bytes()[2]);
        let releases: Vec<_> = order.iter().map(|(guard, _)| guard.is_some()).collect();
        let calls = order.into_iter().map(|(guard, name)| {
            let lock = lock(&together.provider, name);
            async move {
                match guard {
                    Some(guard) => guard.release().await.map(|()| None),
                    None => lock.try_acquire().await,
                }
            }
        });
        for (is_release, answer) in releases
            .into_iter()
            .zip(together.all(calls.collect()).await)
        {
            match is_release {
                true => assert!(answer.expect("it was held").is_none()),
                false => {
                    let error = answer.map(drop).unwrap_err();
                    let unavailable = LockErrorKind::ProviderUnavailable;
                    assert_eq!(error.kind(), unavailable, "{error}");
                    assert!(error.to_string().contains("out of memory"), "{error}");
                }
            }
        }
        assert_eq!(held(&server.raw, &names).await, 0);
        server.raw.ask::<String>("CONFIG SET maxmemory 0").await;
        let guards = together.take_all(&names).await;
        together.release_all(guards).await;
    });
}

fn with_users<F>(rights: &'static str, test: impl FnOnce(Server) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    lock_tests::run(DEADLINE, async move {
        let options = RedisOptions::default()
            .acl("user default on nopass ~* &* +@all")
            .acl(&format!("user myapp on >very-secret {rights}"));
        if let Some(server) = options.start() {
            test(Server::of(server).await).await;
        }
    });
}

async fn together_of_user(server: &Server) -> Together {
    let builder = |url| long(RedisProvider::builder(url)).key_prefix("MyApp1:");
    Together::start_at(server, "myapp:very-secret@", builder).await
}

#[test]
fn the_documented_rights_are_enough_for_groups() {
    with_users(LEAST_PRIVILEGE, |server| async move {
        let together = together_of_user(&server).await;
        let builder = server.builder().lease(Duration::from_secs(600));
        let other = connected(builder.key_prefix("MyApp1:")).await;
        let names = names(MANY);
        let guards = together.take_all(&names).await;
        let waiting: Vec<_> = names
            .iter()
            .step_by(2)
            .map(|name| {
                let (other, name) = (other.clone(), name.clone());
                tokio::spawn(async move { take(&other, &name).await })
            })
            .collect();
        for name in names.iter().step_by(2) {
            let key = format!("MyApp1:{name}");
            server.raw.until_waiting(&key, 1).await;
        }
        together.release_all(guards).await;
        let handed = ended(waiting).await;
        // Waits for what another process holds, in a group, and is given it.
        let calls = names.iter().map(|name| together.take(name));
        let begun = together.begin(calls.collect()).await;
        together.proxy.heal();
        for guard in handed {
            guard.release().await.unwrap();
        }
        let guards: Result<Vec<_>, _> = ended(begun).await.into_iter().collect();
        // Passed on, too.
        let guards = guards.unwrap();
        let mut waiting = Vec::new();
        for name in &names {
            let mut next = Box::pin(together.take(name));
            assert!(poll_once(next.as_mut()).await.is_none());
            waiting.push(tokio::spawn(next));
        }
        together.release_all(guards).await;
        let guards: Result<Vec<_>, _> = ended(waiting).await.into_iter().collect();
        together.release_all(guards.unwrap()).await;
        let denied: Vec<redis::Value> = server.raw.ask("ACL LOG").await;
        let optional = |entry: &redis::Value| {
            let entry = format!("{entry:?}");
            entry.contains("client") || entry.contains("info")
        };
        assert!(denied.iter().all(optional), "{denied:?}");
    });
}

/// The server checks the rights to all keys of a request before it does anything.
#[test]
fn a_name_that_the_user_may_not_lock_fails_alone() {
    const SOME: &str = "resetchannels ~MyApp1:n* ~{MyApp1:n* ~MyApp1:w* ~{MyApp1:w* \
        ~MyApp1:lk1:fence &MyApp1:lk1:grants:* +@all";
    with_users(SOME, |server| async move {
        let together = together_of_user(&server).await;
        let mut names = names(MANY);
        names[20] = "theirs".to_owned();
        let begun = together.begin(names.iter().map(|name| together.take(name)).collect());
        let begun = begun.await;
        together.proxy.heal();
        let mut guards = Vec::new();
        for (name, answer) in names.iter().zip(ended(begun).await) {
            match name.as_str() {
                "theirs" => is_forbidden(answer.map(drop)),
                _ => guards.push(answer.expect("it is free")),
            }
        }
        // The same with a release, since the user has lost a right meanwhile.
        let all_but_21 = "ACL SETUSER myapp resetkeys ~MyApp1:lk1:fence ~MyApp1:n[013-6]* \
            ~{MyApp1:n[013-6]* ~MyApp1:n2[02-9] ~{MyApp1:n2[02-9]*";
        server.raw.ask::<String>(all_but_21).await;
        let begun = together
            .begin(guards.into_iter().map(LockGuard::release).collect())
            .await;
        together.proxy.heal();
        let without_20 = names.iter().filter(|name| *name != "theirs");
        for (name, released) in without_20.zip(ended(begun).await) {
            match name.as_str() {
                "n21" => is_forbidden(released),
                _ => released.expect("it was held"),
            }
        }
        let keys: Vec<String> = server.raw.ask("KEYS MyApp1:n*").await;
        assert_eq!(keys, ["MyApp1:n21"]);
        let denied: Vec<redis::Value> = server.raw.ask("ACL LOG").await;
        let denied = format!("{denied:?}");
        assert!(
            denied.contains("theirs") && denied.contains("n21"),
            "{denied}"
        );
    });
}

fn is_forbidden(answer: Result<(), LockError>) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("ACL"), "{error}");
}

/// The states in which a lock may be when it is asked for or released.
const STATES: [&str; 11] = [
    "free",
    "its own",
    "another of ours",
    "foreign",
    "never expires",
    "another type",
    "a live waiter",
    "a dead waiter",
    "no queue",
    "free with a live waiter",
    "free with a dead waiter",
];

const COUNTERS: [&str; 4] = ["as it was", "missing", "another type", "ahead"];

/// The outcome of a call, and what the lock's keys are like after it.
type Outcome = (String, String, String);

/// Brings the lock's keys into a state, with this provider's guard where one is to be released.
async fn bring_about(raw: &Raw, state: &str, name: &str, listening: &str, owner: Option<&str>) {
    let lock = owner.map(str::to_owned);
    let set = |value: &str, life: &str| format!("SET {name} {value}{life}");
    let waiter = |channel: &str| {
        let far = 9_999_999_999_999_u64;
        format!("RPUSH {{{name}}}:lk1:waiters lk1:h:1:waits|{channel}|60000|1|{far}")
    };
    let mut commands: Vec<String> = Vec::new();
    match state {
        "another of ours" => commands.push(set("lk1:h:1:other", " PX 60000")),
        "foreign" => commands.push(set("foreign", " PX 60000")),
        "never expires" => commands.push(set("done", "")),
        "another type" => {
            commands.push(format!("DEL {name}"));
            commands.push(format!("HSET {name} field value"));
        }
        "a live waiter" => {
            commands.extend(lock.is_none().then(|| set("lk1:h:1:other", " PX 60000")));
            commands.push(waiter(listening));
        }
        "a dead waiter" => {
            commands.extend(lock.is_none().then(|| set("lk1:h:1:other", " PX 60000")));
            commands.push(waiter("nobody"));
        }
        "no queue" => {
            commands.extend(lock.is_none().then(|| set("lk1:h:1:other", " PX 60000")));
            commands.push(format!("SET {{{name}}}:lk1:waiters text"));
        }
        "free with a live waiter" => {
            commands.push(format!("DEL {name}"));
            commands.push(waiter(listening));
        }
        "free with a dead waiter" => {
            commands.push(format!("DEL {name}"));
            commands.push(waiter("nobody"));
        }
        "free" => commands.push(format!("DEL {name}")),
        _ => {}
    }
    for command in commands {
        raw.ask::<redis::Value>(&command).await;
    }
}

/// Describes the keys of a lock, without what differs from one call to the next.
async fn keys_of(raw: &Raw, name: &str) -> String {
    let kind: String = raw.ask(&format!("TYPE {name}")).await;
    let value = match kind.as_str() {
        "string" => raw.get(name).await.unwrap_or_default(),
        _ => String::new(),
    };
    let holder = match value.as_str() {
        "" => "nobody",
        "lk1:h:1:other" | "lk1:h:1:waits" | "foreign" | "done" => &value,
        _ => "this provider",
    };
    let expires = raw.ask::<i64>(&format!("PTTL {name}")).await > 0;
    let queue: String = raw.ask(&format!("TYPE {{{name}}}:lk1:waiters")).await;
    let length = match queue.as_str() {
        "list" => raw.waiting(name).await,
        _ => 0,
    };
    format!("{kind} of {holder}, expires: {expires}, {queue} of {length}")
}

async fn set_counter(server: &Server, counter: &str) {
    match counter {
        "missing" => drop(server.raw.ask::<u8>("DEL lk1:fence").await),
        "another type" => {
            // In one step, since others may take tokens meanwhile.
            server.raw.ask::<u8>("HSET no-counter field value").await;
            server
                .raw
                .ask::<String>("RENAME no-counter lk1:fence")
                .await;
        }
        "ahead" => {
            let ahead = server.clock().await + 3_600_000_000;
            let set = format!("SET lk1:fence {ahead} PX 600000");
            server.raw.ask::<String>(&set).await;
        }
        _ => {}
    }
}

fn described(
    answer: Result<Option<LockGuard>, LockError>,
    name: &str,
    granted: &mut Vec<LockGuard>,
) -> String {
    match answer {
        Ok(Some(guard)) => {
            assert!(guard.fencing_token().is_some());
            granted.push(guard);
            "granted".to_owned()
        }
        Ok(None) => "contended".to_owned(),
        Err(error) => format!("{:?}: {error}", error.kind()).replace(name, "NAME"),
    }
}

/// Makes one call in each state, alone or in one group with the others, and returns the outcomes.
async fn outcomes(
    server: &Server,
    together: &Together,
    act: Act,
    counter: &str,
    in_group: bool,
) -> Vec<Outcome> {
    let way = if in_group { "group" } else { "alone" };
    let slug = |state: &str| state.replace(' ', "-");
    let name = |state: &str| format!("{act:?}:{way}:{}:{}", slug(counter), slug(state));
    let listening = format!("listening:{way}");
    let client = redis::Client::open(server.process.url()).expect("a URL");
    let mut listener = client.get_async_pubsub().await.expect("it answers");
    listener.subscribe(&listening).await.expect("it may");
    // So that no counter from before is above those to come.
    server.raw.ask::<u8>("DEL lk1:fence").await;
    let mut guards = Vec::new();
    for state in STATES {
        let name = name(state);
        let guard = match act {
            Act::Release | Act::PassOn => Some(take(&together.provider, &name).await),
            Act::Try | Act::Wait => None,
        };
        let owner = server.raw.get(&name).await;
        bring_about(&server.raw, state, &name, &listening, owner.as_deref()).await;
        guards.push(guard);
    }
    let mut waiting = Vec::new();
    let mut calls = Vec::new();
    for (state, guard) in STATES.into_iter().zip(guards) {
        let lock = lock(&together.provider, &name(state));
        if act == Act::PassOn {
            let lock = lock.clone();
            let mut next = Box::pin(async move { lock.try_acquire_for(SHORT).await });
            assert!(poll_once(next.as_mut()).await.is_none(), "it waits");
            waiting.push(tokio::spawn(next));
        }
        calls.push(async move {
            match (act, guard) {
                (Act::Release | Act::PassOn, Some(guard)) => guard.release().await.map(|()| None),
                (Act::Wait, _) => lock.try_acquire_for(SHORT).await,
                _ => lock.try_acquire().await,
            }
        });
    }
    let before = asked(&server.raw).await;
    let answers = match in_group {
        true => {
            set_counter(server, counter).await;
            // Two others go first, and keep those from going alone.
            let first = (0..2).map(|number| together.take(&format!("first:{number}")));
            let first = together.begin(first.collect()).await;
            let begun = together.begin(calls).await;
            together.proxy.heal();
            for guard in ended(first).await {
                guard.unwrap().release().await.unwrap();
            }
            ended(begun).await
        }
        false => {
            let mut answers = Vec::new();
            for call in calls {
                set_counter(server, counter).await;
                answers.push(call.await);
            }
            answers
        }
    };
    let asked = asked(&server.raw).await - before;
    if matches!(act, Act::Release | Act::Try) {
        let few = asked < STATES.len() as u64;
        assert_eq!(few, in_group, "{asked} requests {way}");
    }
    let mut granted = Vec::new();
    let mut described: Vec<_> = STATES
        .into_iter()
        .zip(answers)
        .map(|(state, answer)| described(answer, &name(state), &mut granted))
        .collect();
    for (place, next) in ended(waiting).await.into_iter().enumerate() {
        let name = name(STATES[place]);
        described[place] += &format!(", next: {}", self::described(next, &name, &mut granted));
    }
    // Whoever gave up waiting leaves the queue.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut outcomes = Vec::new();
    for (state, described) in STATES.into_iter().zip(described) {
        let keys = keys_of(&server.raw, &name(state)).await;
        outcomes.push((state.to_owned(), described, keys));
    }
    for guard in granted {
        guard.release().await.unwrap();
    }
    outcomes
}

const SHORT: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Try,
    Wait,
    Release,
    PassOn,
}

/// In every state that a lock and the counter may be in, a call in a group ends as one alone does.
#[test]
fn a_group_answers_as_single_calls_do() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        for act in [Act::Try, Act::Release, Act::PassOn, Act::Wait] {
            for counter in COUNTERS {
                // One by one, waits take long.
                if act == Act::Wait && matches!(counter, "another type" | "ahead") {
                    continue;
                }
                let alone = outcomes(&server, &together, act, counter, false).await;
                let in_group = outcomes(&server, &together, act, counter, true).await;
                assert_eq!(alone, in_group, "{act:?}, counter {counter}");
                let granted = alone.iter().filter(|(_, what, _)| what.contains("granted"));
                assert!(granted.count() > 0 || act == Act::Release, "{alone:?}");
            }
        }
    });
}

/// A thread whose own values go one after another: first what the library keeps there, then the
/// guard, while the runtime's is still there.
#[test]
fn guards_that_are_dropped_after_their_thread_s_other_values_are_released() {
    thread_local! {
        static KEPT: RefCell<Option<LockGuard>> = const { RefCell::new(None) };
    }
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        // More than there are lanes.
        for round in 0..6 {
            let lock = match round % 2 {
                0 => lock(&provider, "order"),
                _ => lock(&provider, "order").release_in_background(),
            };
            let ended = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.expect("a runtime starts").block_on(async move {
                    // Whoever is first here is the last to go.
                    KEPT.with_borrow(|kept| assert!(kept.is_none()));
                    let guard = lock.acquire_for(BOUND).await.expect("free");
                    KEPT.set(Some(guard));
                });
            });
            let ended = tokio::task::spawn_blocking(move || ended.join());
            ended.await.unwrap().expect("no panic");
            server.raw.until_gone("order", BOUND).await;
        }
        take(&provider, "order").await.release().await.unwrap();
    });
}
