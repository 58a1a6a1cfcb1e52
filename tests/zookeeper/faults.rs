//! Faults of the network. Each test shows that its fault happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::history::Held;
use lock_tests::proxy::Flow;
use lock_tests::{History, boot_nanos, eventually};

use crate::common::{BOUND, LONG, break_off, keep_off, lock, take, token, waiting, with_server};
use crate::session_takeover::close_session;

const SHORT: Duration = Duration::from_millis(500);

#[test]
fn a_lock_outlives_its_connection() {
    with_server(|place| async move {
        let (proxy, provider) = place.behind_proxy(|builder| builder).await;
        let guard = take(&provider, "order").await;
        for round in 1..=5 {
            let connections = proxy.counts().connections.load(Ordering::Relaxed);
            proxy.reset();
            eventually("it connects again", BOUND, || async {
                proxy.counts().connections.load(Ordering::Relaxed) > connections
            })
            .await;
            take(&provider, "other").await.release().await.unwrap();
            assert!(proxy.counts().broken.load(Ordering::Relaxed) >= round);
        }
        assert!(!guard.is_lost());
        assert_eq!(place.children("order").await.len(), 1);
        guard.release().await.unwrap();
        place.until_gone("order").await;
    });
}

#[test]
fn a_half_cut_connection_is_left() {
    with_server(|place| async move {
        for to_server in [true, false] {
            let (proxy, provider) = place
                .behind_proxy(|builder| builder.lease(Duration::from_secs(6)))
                .await;
            let guard = take(&provider, "order").await;
            proxy.set(|fault| match to_server {
                true => fault.to_server = Flow::Cut,
                false => fault.to_client = Flow::Cut,
            });
            eventually("it is cut", BOUND, || async {
                proxy.counts().broken.load(Ordering::Relaxed) > 0
            })
            .await;
            proxy.heal();
            // On a new connection, and in time.
            take(&provider, "other").await.release().await.unwrap();
            assert!(!guard.is_lost());
            guard.release().await.unwrap();
        }
    });
}

#[test]
fn a_creation_whose_answer_is_lost_is_found_again() {
    with_server(|place| async move {
        let (proxy, provider) = place.behind_proxy(|builder| builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let taking = waiting(&provider, "order");
        let children = place.until_children("order", 1).await;
        break_off(&proxy).await;
        let guard = taking.await.unwrap();
        assert_eq!(
            place.children("order").await,
            children,
            "one node, the first one"
        );
        let (_, stat) = place.child("order", &children[0]).await;
        assert_eq!(token(&guard), stat.czxid.unsigned_abs());
        guard.release().await.unwrap();
        place.until_gone("order").await;
    });
}

#[test]
fn a_creation_that_nobody_wants_any_more_is_undone() {
    with_server(|place| async move {
        for waits in [true, false] {
            let (proxy, provider) = place
                .behind_proxy(|builder| builder.connect_timeout(SHORT))
                .await;
            take(&provider, "warm-up").await.release().await.unwrap();
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let timeout = if waits {
                Duration::from_secs(1)
            } else {
                Duration::ZERO
            };
            let tried = lock(&provider, "order").acquire_for(timeout).await;
            let error = tried.unwrap_err();
            if !waits {
                assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            }
            place.until_children("order", 1).await;
            break_off(&proxy).await;
            place.until_gone("order").await;
        }
    });
}

/// The node of a session that has ended, or of another client that says the same, is not the
/// provider's own.
#[test]
fn a_node_of_another_session_is_not_adopted() {
    with_server(|place| async move {
        for session_ends in [true, false] {
            let (proxy, provider) = place.behind_proxy(|builder| builder).await;
            take(&provider, "warm-up").await.release().await.unwrap();
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let taking = waiting(&provider, "order");
            let children = place.until_children("order", 1).await;
            let (owner, stat) = place.child("order", &children[0]).await;
            let look_alike = place.queue("order", "lock-", &owner).await;
            if session_ends {
                close_session(place.port, stat.ephemeral_owner);
            } else {
                let own = place.path("order", &children[0]);
                place.raw.delete(&own, None).await.unwrap();
            }
            break_off(&proxy).await;
            // It queues again, behind the look-alike.
            let children = place.until_children("order", 2).await;
            assert!(look_alike.ends_with(&children[0]));
            assert_eq!(place.child("order", &children[1]).await.0, owner);
            assert!(!taking.is_finished());
            place.raw.delete(&look_alike, None).await.unwrap();
            taking.await.unwrap().release().await.unwrap();
            place.until_gone("order").await;
        }
    });
}

#[test]
fn a_release_whose_answer_is_lost_touches_nobody_else() {
    with_server(|place| async move {
        let (proxy, provider) = place.behind_proxy(|builder| builder).await;
        let guard = take(&provider, "order").await;
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let releasing = tokio::spawn(guard.release());
        place.until_gone("order").await;
        // Somebody else gets a node of the same name.
        let foreign = place.queue("order", "lock-", b"").await;
        assert!(foreign.ends_with("lock-0000000000"));
        break_off(&proxy).await;
        releasing.await.unwrap().unwrap();
        assert!(place.raw.check_stat(&foreign).await.unwrap().is_some());
        // Nor does what may come later.
        take(&provider, "other").await.release().await.unwrap();
        assert!(place.raw.check_stat(&foreign).await.unwrap().is_some());
    });
}

/// Somebody removes the holder's node, and the lock's node goes too. Another client gets a node of
/// the same name, while the holder hears nothing of it.
#[test]
fn a_release_leaves_another_one_s_node_of_the_same_name_alone() {
    with_server(|place| async move {
        for is_connected in [true, false] {
            let (proxy, provider) = place.behind_proxy(|builder| builder).await;
            let guard = take(&provider, "order").await;
            // Nor is it a lock that was taken just now.
            tokio::time::sleep(SHORT).await;
            if is_connected {
                proxy.set(|fault| fault.to_client = Flow::Hold);
            } else {
                keep_off(&proxy).await;
            }
            let children = place.children("order").await;
            let own = place.path("order", &children[0]);
            place.raw.delete(&own, None).await.unwrap();
            place.raw.delete(&place.node("order"), None).await.unwrap();
            let foreign = place.queue("order", "lock-", b"").await;
            assert_eq!(foreign, own);
            let asked = proxy.counts().to_server.load(Ordering::Relaxed);
            let releasing = tokio::spawn(guard.release());
            if is_connected {
                eventually("it has asked", BOUND, || async {
                    proxy.counts().to_server.load(Ordering::Relaxed) > asked
                })
                .await;
            }
            proxy.heal();
            let error = releasing.await.unwrap().unwrap_err();
            if is_connected {
                assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
            } else {
                // Its node is looked for in the background, as soon as there is a connection.
                assert!(
                    error.kind() == LockErrorKind::ProviderUnavailable
                        || error.kind() == LockErrorKind::Lost
                );
                take(&provider, "other").await.release().await.unwrap();
            }
            assert!(place.raw.check_stat(&foreign).await.unwrap().is_some());
            place.raw.delete(&foreign, None).await.unwrap();
            place.raw.delete(&place.node("order"), None).await.unwrap();
        }
    });
}

/// A waiter's turn comes when the first node has its name and is another client's.
#[test]
fn a_waiter_is_not_granted_another_one_s_node_of_the_same_name() {
    with_server(|place| async move {
        let (proxy, provider) = place.behind_proxy(|builder| builder).await;
        let holder = place.provider().await;
        let guard = take(&holder, "order").await;
        let waiter = waiting(&provider, "order");
        let children = place.until_children("order", 2).await;
        keep_off(&proxy).await;
        let own = place.path("order", &children[1]);
        place.raw.delete(&own, None).await.unwrap();
        guard.release().await.unwrap();
        assert!(!place.exists("order").await);
        let first = place.queue("order", "lock-", b"").await;
        let foreign = place.queue("order", "lock-", b"").await;
        assert_eq!(foreign, own);
        place.raw.delete(&first, None).await.unwrap();
        proxy.heal();
        // It queues again.
        place.until_children("order", 2).await;
        assert!(!waiter.is_finished());
        place.raw.delete(&foreign, None).await.unwrap();
        waiter.await.unwrap().release().await.unwrap();
        place.until_gone("order").await;
    });
}

#[test]
fn a_waiter_keeps_its_place_while_its_connection_is_gone() {
    with_server(|place| async move {
        let (proxy, provider) = place.behind_proxy(|builder| builder).await;
        let holder = place.provider().await;
        let guard = take(&holder, "order").await;
        let waiter = waiting(&provider, "order");
        let children = place.until_children("order", 2).await;
        keep_off(&proxy).await;
        // The watched node goes while nobody can be told.
        guard.release().await.unwrap();
        proxy.heal();
        let guard = waiter.await.unwrap();
        assert_eq!(place.children("order").await, children[1..]);
        guard.release().await.unwrap();
    });
}

/// Connections break again and again; nobody overlaps, and tokens grow.
#[test]
fn nobody_overlaps_while_connections_break() {
    with_server(|place| async move {
        let history = Arc::new(History::default());
        let stop = Arc::new(AtomicBool::new(false));
        let mut proxies = Vec::new();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..4 {
            let (proxy, provider) = place.behind_proxy(|builder| builder).await;
            proxies.push(proxy);
            let (history, stop) = (history.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let guard = match lock(&provider, "order").acquire_for(LONG).await {
                        Ok(guard) => guard,
                        Err(error) if error.is_retryable() => continue,
                        Err(error) => panic!("{error}"),
                    };
                    let from = boot_nanos();
                    tokio::task::yield_now().await;
                    let until = boot_nanos();
                    if !guard.is_lost() {
                        history.record(Held {
                            name: "order".to_owned(),
                            holder: number.to_string(),
                            from,
                            until,
                            token: Some(token(&guard)),
                        });
                    }
                    let _ = guard.release().await;
                }
            });
        }
        for round in 0..40 {
            proxies[round % 4].reset();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        let broken: u64 = proxies
            .iter()
            .map(|proxy| proxy.counts().broken.load(Ordering::Relaxed))
            .sum();
        assert!(broken >= 20, "{broken} connections broke");
        assert!(history.len() > 20, "{} grants", history.len());
        history.check();
        place.until_gone("order").await;
    });
}
