//! One session holds many locks, and they end with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::{ZooKeeperServer, eventually};
use tokio::task::JoinSet;

use crate::common::{BOUND, DEADLINE, Place, connected, lock, take, token, waiting, with_server};
use crate::session_takeover::close_session;

#[test]
fn a_thousand_locks_are_held_on_one_session() {
    const LOCKS: usize = 1_000;
    let lease = Duration::from_secs(6);
    with_server(move |place| async move {
        let provider = connected(place.builder().lease(lease)).await;
        let mut tasks = JoinSet::new();
        for number in 0..LOCKS {
            let provider = provider.clone();
            tasks.spawn(async move { take(&provider, &number.to_string()).await });
        }
        let guards = tasks.join_all().await;
        let mut owners = std::collections::HashSet::new();
        for number in 0..LOCKS {
            let name = number.to_string();
            let children = place.children(&name).await;
            owners.insert(place.session_of(&name, &children[0]).await);
        }
        assert_eq!(owners.len(), 1, "one session");
        tokio::time::sleep(2 * lease).await;
        assert!(guards.iter().all(|guard| !guard.is_lost()));
        // The end of the session is the end of all of them.
        let owner = owners.into_iter().next().unwrap();
        let start = Instant::now();
        close_session(place.port, owner);
        for guard in &guards {
            guard.lost().await;
        }
        assert!(start.elapsed() < lease / 2, "by evidence, not by deadline");
    });
}

/// The watches of a session must fit into one request of a client that connects again. So locks
/// with long names live on several sessions.
#[test]
fn a_thousand_locks_with_long_names_outlive_their_connections() {
    const LOCKS: usize = 1_000;
    let lease = Duration::from_secs(6);
    let name = |number: usize| format!("{number:0150}");
    with_server(move |place| async move {
        let (proxy, provider) = place.behind_proxy(|builder| builder.lease(lease)).await;
        let mut tasks = JoinSet::new();
        for number in 0..LOCKS {
            let provider = provider.clone();
            tasks.spawn(async move { take(&provider, &name(number)).await });
        }
        let mut guards = tasks.join_all().await;
        let mut owners = std::collections::HashMap::new();
        for number in 0..LOCKS {
            let children = place.children(&name(number)).await;
            let session = place.session_of(&name(number), &children[0]).await;
            owners.insert(session, name(number));
        }
        assert!((2..=3).contains(&owners.len()), "{} sessions", owners.len());
        // All but one of the sessions are full: there, too, a lock is passed on.
        for name in owners.values() {
            let at = guards
                .iter()
                .position(|guard| guard.name().as_str() == name);
            let guard = guards.remove(at.unwrap());
            let (next, released) = tokio::join!(take(&provider, name), guard.release());
            released.unwrap();
            guards.push(next);
        }
        proxy.reset();
        eventually("the connections break", BOUND, || async {
            proxy.counts().broken.load(Ordering::Relaxed) >= 2
        })
        .await;
        tokio::time::sleep(2 * lease).await;
        let lost = guards.iter().filter(|guard| guard.is_lost()).count();
        assert_eq!(lost, 0, "lost");
        // There is room again, and nobody needs a further session.
        drop(guards);
        for number in 0..LOCKS {
            place.until_gone(&name(number)).await;
        }
        let connections = proxy.counts().connections.load(Ordering::Relaxed);
        take(&provider, &name(0)).await.release().await.unwrap();
        let now = proxy.counts().connections.load(Ordering::Relaxed);
        assert_eq!(now, connections);
    });
}

/// The server would let a session have one lock twice.
#[test]
fn two_tasks_of_one_process_never_both_hold() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let clone = Arc::new((*provider).clone());
        let guard = take(&provider, "order").await;
        for other in [&provider, &clone] {
            let tried = lock(other, "order").try_acquire().await.unwrap();
            assert!(tried.is_none(), "held by the other task");
        }
        let waiter = waiting(&clone, "order");
        assert_eq!(place.children("order").await.len(), 1, "it never asked");
        let before = token(&guard);
        guard.release().await.unwrap();
        let guard = waiter.await.unwrap();
        assert!(token(&guard) > before);
        guard.release().await.unwrap();
    });
}

#[test]
fn a_waiter_whose_node_is_removed_queues_again() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let guard = take(&first, "order").await;
        let waiter = waiting(&second, "order");
        let children = place.until_children("order", 2).await;
        let path = place.path("order", &children[1]);
        place.raw.delete(&path, None).await.unwrap();
        let behind = place.queue("order", "lock-", b"").await;
        guard.release().await.unwrap();
        // It is the last one now.
        let children = place.until_children("order", 2).await;
        assert!(behind.ends_with(&children[0]));
        assert!(!waiter.is_finished());
        place.raw.delete(&behind, None).await.unwrap();
        waiter.await.unwrap().release().await.unwrap();
        place.until_gone("order").await;
    });
}

#[test]
fn a_closed_session_is_a_loss_and_another_one_is_made() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let guard = take(&provider, "order").await;
        let children = place.children("order").await;
        let session = place.session_of("order", &children[0]).await;
        close_session(place.port, session);
        tokio::time::timeout(BOUND, guard.lost())
            .await
            .expect("the loss is noticed");
        let error = guard.release().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost);
        assert!(error.to_string().contains("session"), "{error}");
        let guard = take(&provider, "order").await;
        let children = place.children("order").await;
        assert_ne!(place.session_of("order", &children[0]).await, session);
        guard.release().await.unwrap();
    });
}

#[test]
fn a_waiter_whose_session_is_closed_queues_again() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let guard = take(&first, "order").await;
        let waiter = waiting(&second, "order");
        let children = place.until_children("order", 2).await;
        let session = place.session_of("order", &children[1]).await;
        close_session(place.port, session);
        eventually("it queues again", BOUND, || async {
            let now = place.children("order").await;
            now.len() == 2 && now[1] != children[1]
        })
        .await;
        guard.release().await.unwrap();
        waiter.await.unwrap().release().await.unwrap();
        place.until_gone("order").await;
    });
}

#[test]
fn a_node_that_somebody_removes_is_a_loss() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let guard = take(&provider, "order").await;
        let other = take(&provider, "other").await;
        let children = place.children("order").await;
        let path = place.path("order", &children[0]);
        place.raw.delete(&path, None).await.unwrap();
        tokio::time::timeout(BOUND, guard.lost())
            .await
            .expect("the loss is noticed");
        // Names begin anew once the lock's node was removed: this is somebody else's.
        place.raw.delete(&place.node("order"), None).await.unwrap();
        let foreign = place.queue("order", "lock-", b"").await;
        assert_eq!(foreign, path);
        assert_eq!(
            guard.release().await.unwrap_err().kind(),
            LockErrorKind::Lost
        );
        assert!(
            place.raw.check_stat(&foreign).await.unwrap().is_some(),
            "left alone"
        );
        assert!(!other.is_lost(), "the session lives");
        other.release().await.unwrap();
    });
}

#[test]
fn the_session_ends_with_the_provider() {
    lock_tests::run(DEADLINE, async {
        let Some(server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let provider = place.provider().await;
        let guard = take(&provider, "order").await;
        let children = place.children("order").await;
        let session = place.session_of("order", &children[0]).await;
        let lives = || {
            let sessions = server.ask("dump").expect("the server answers");
            sessions.contains(&format!("0x{session:x}"))
        };
        drop(provider);
        assert!(lives(), "for the guard");
        guard.release().await.unwrap();
        // Its timeout is far away.
        eventually("the session is closed", BOUND, || async { !lives() }).await;
        assert!(!place.exists("order").await);
    });
}

/// The server removes it, since its holder can no longer do so.
#[test]
fn the_server_removes_the_lock_s_node_after_the_end_of_a_session() {
    lock_tests::run(DEADLINE, async {
        let every = Duration::from_millis(200);
        let Some(server) = ZooKeeperServer::start_with_container_check(every) else {
            return;
        };
        let place = Place::on(server.port()).await;
        let provider = place.provider().await;
        let guard = take(&provider, "order").await;
        let children = place.children("order").await;
        let session = place.session_of("order", &children[0]).await;
        close_session(place.port, session);
        guard.lost().await;
        place.until_gone("order").await;
        // It may be gone at any time.
        for _ in 0..10 {
            take(&provider, "order").await.release().await.unwrap();
        }
    });
}

/// A waiter is woken by the one before it, and by nobody else.
#[test]
fn a_hand_over_costs_the_same_however_many_wait() {
    lock_tests::run(DEADLINE, async {
        const WAITERS: u64 = 200;
        let Some(server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let holder = place.provider().await;
        let guard = take(&holder, "order").await;
        let mut tasks = JoinSet::new();
        for _ in 0..WAITERS {
            let provider = place.provider().await;
            tasks.spawn(async move {
                // No deadline: they all wait for the slowest to queue.
                let guard = lock(&provider, "order").acquire().await.unwrap();
                let token = token(&guard);
                guard.release().await.unwrap();
                (token, provider)
            });
        }
        place
            .until_children("order", 1 + usize::try_from(WAITERS).unwrap())
            .await;
        let count = |what: &str| {
            let answer = server.ask("mntr").expect("the server answers");
            let line = answer.lines().find_map(|line| line.strip_prefix(what));
            line.and_then(|number| number.trim().parse::<u64>().ok())
                .expect("a number")
        };
        let packets = || count("zk_packets_received");
        // Each has an eye on one node, the holder on its own.
        eventually("all watch", BOUND, || async {
            count("zk_watch_count") == WAITERS + 1
        })
        .await;
        let before = packets();
        guard.release().await.unwrap();
        let done = tasks.join_all().await;
        let each = (packets() - before) / WAITERS;
        // Two removals, a look, a confirmation, an eye on the own node; and signs of life.
        assert!(each <= 10, "{each} requests a hand-over");
        let tokens: std::collections::BTreeSet<_> = done.iter().map(|(token, _)| token).collect();
        assert_eq!(tokens.len(), done.len());
    });
}
