//! Semaphores: their nodes, what stands in them, and other programs that wait beside us.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{Grant, LockErrorKind, LockProvider, ZooKeeperProvider};
use lock_tests::any_lock::permits;
use lock_tests::eventually;
use zookeeper_client::EventType;

use crate::common::{BOUND, Place, enter, entering, request, try_enter, with_server};

const ACQUIRED: &[u8] = b"ACQUIRED";

async fn until_acquired(place: &Place, child: &str) {
    eventually("it says that it has its permit", BOUND, async || {
        place.child("order", child).await.0 == ACQUIRED
    })
    .await;
}

async fn give_back(provider: &Arc<ZooKeeperProvider>, grant: &Grant) {
    provider.release(grant).await.expect("it was held");
}

#[test]
fn permits_are_nodes_that_say_so() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let one = try_enter(&first, "order", permits(1, 3)).await.unwrap();
        let two = try_enter(&second, "order", permits(2, 3)).await.unwrap();
        assert!(one.token().is_none() && two.token().is_none());
        let children = place.children("order").await;
        let expected = [
            "semaphore-0000000000",
            "semaphore-0000000001",
            "semaphore-0000000002",
        ];
        assert_eq!(children, expected);
        for child in &children {
            until_acquired(&place, child).await;
        }
        // One transaction made the two.
        let made = async |child: &str| place.child("order", child).await.1.czxid;
        assert_eq!(made(expected[1]).await, made(expected[2]).await);

        for provider in [&first, &second] {
            let asked = Instant::now();
            let refused = try_enter(provider, "order", permits(1, 3)).await;
            let error = refused.expect_err("all are taken");
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
            assert!(asked.elapsed() < Duration::from_secs(1), "at once");
        }
        assert_eq!(place.children("order").await, expected);
        let (waiting, _) = entering(&first, "order", permits(1, 3));
        let children = place.until_children("order", 4).await;
        let waits = place.child("order", &children[3]).await.0;
        assert!(waits.starts_with(b"lk1:"), "it waits");
        give_back(&second, &two).await;
        let waited = waiting.await.unwrap().unwrap();
        until_acquired(&place, &children[3]).await;
        give_back(&first, &one).await;
        give_back(&first, &waited).await;
        place.until_gone("order").await;
    });
}

/// The holder looks at its node after 20 ms, and would write it then. That is late for whoever
/// waits to be the next one.
#[test]
fn a_permit_says_so_at_once() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let mut soonest = i64::MAX;
        for _ in 0..10 {
            let grant = enter(&provider, "order", permits(1, 1)).await;
            until_acquired(&place, "semaphore-0000000000").await;
            let stat = place.child("order", "semaphore-0000000000").await.1;
            soonest = soonest.min(stat.mtime - stat.ctime);
            give_back(&provider, &grant).await;
            place.until_gone("order").await;
        }
        // By the server's clock; the machine may be busy, but not each time.
        assert!(soonest < 20, "{soonest} ms after its creation");
    });
}

/// The one of theirs that is two behind sleeps until the one between says that it has its permit.
#[test]
fn a_waiter_of_the_net_library_behind_ours_is_woken() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let their_first = place.queue("order", "semaphore-", ACQUIRED).await;
        let (waiting, _) = entering(&provider, "order", permits(1, 1));
        let children = place.until_children("order", 2).await;
        let _their_last = place.queue("order", "semaphore-", b"").await;
        let ours = place.path("order", &children[1]);
        let (data, _, changed) = place.raw.get_and_watch_data(&ours).await.unwrap();
        assert_ne!(data, ACQUIRED, "it would look again and again");
        place.raw.delete(&their_first, None).await.unwrap();
        let granted = waiting.await.unwrap().unwrap();
        let event = tokio::time::timeout(BOUND, changed.changed()).await;
        let event = event.expect("it is told").event_type;
        assert_eq!(event, EventType::NodeDataChanged);
        let (data, _, _) = place.raw.get_and_watch_data(&ours).await.unwrap();
        assert_eq!(data, ACQUIRED);
        // It is the next one now, and watches the children.
        let node = place.node("order");
        let (_, next) = place.raw.list_and_watch_children(&node).await.unwrap();
        give_back(&provider, &granted).await;
        let event = tokio::time::timeout(BOUND, next.changed()).await;
        let event = event.expect("it is told").event_type;
        assert_eq!(event, EventType::NodeChildrenChanged);
    });
}

#[test]
fn a_waiter_behind_one_of_the_net_library_is_served_in_turn() {
    with_server(|place| async move {
        let provider = place.provider().await;
        // Whoever holds a permit need not say so.
        for says in [ACQUIRED, b""] {
            let first = place.queue("order", "semaphore-", says).await;
            let second = place.queue("order", "semaphore-", b"").await;
            let (waiting, _) = entering(&provider, "order", permits(1, 1));
            place.until_children("order", 3).await;
            place.raw.delete(&first, None).await.unwrap();
            place.raw.set_data(&second, says, None).await.unwrap();
            place.until_children("order", 2).await;
            assert!(!waiting.is_finished(), "it is the second one's turn");
            place.raw.delete(&second, None).await.unwrap();
            let granted = waiting.await.unwrap().unwrap();
            give_back(&provider, &granted).await;
            place.until_gone("order").await;
        }
    });
}

/// Other programs may write nothing into the nodes that hold permits.
#[test]
fn holders_that_do_not_say_so_leave_in_any_order() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let first = place.queue("order", "semaphore-", b"").await;
        place.queue("order", "semaphore-", b"").await;
        let (waiting, _) = entering(&provider, "order", permits(1, 2));
        place.until_children("order", 3).await;
        place.raw.delete(&first, None).await.unwrap();
        let granted = tokio::time::timeout(BOUND, waiting).await;
        let granted = granted.expect("one of two is out").unwrap().unwrap();
        give_back(&provider, &granted).await;
    });
}

/// A grant of some is given up for another of more, in one step.
#[test]
fn a_grant_of_some_is_passed_on_to_one_of_all() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let mut grant = enter(&provider, "order", permits(1, 3)).await;
        for take in [3, 2, 1, 3] {
            let (next, _interest) = request("order", permits(take, 3), true);
            let passing = tokio::time::timeout(BOUND, provider.pass_on(&grant, &next));
            grant = passing.await.expect("nobody else has any").unwrap();
            place.until_children("order", take as usize).await;
        }
        give_back(&provider, &grant).await;
        place.until_gone("order").await;
    });
}

/// There is no room for more on the session of the old grant, so the new one is on another.
#[test]
fn a_grant_is_passed_on_to_another_session() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let name = format!("{:0150}", 0);
        let few = enter(&provider, &name, permits(1, 100)).await;
        let filling = enter(&provider, &format!("{:0150}", 1), permits(490, 500)).await;
        let (next, _interest) = request(&name, permits(100, 100), true);
        let passing = tokio::time::timeout(BOUND, provider.pass_on(&few, &next));
        let all = passing.await.expect("nobody else has any").unwrap();
        let children = place.until_children(&name, 100).await;
        let session = place.session_of(&name, &children[0]).await;
        let other = place.children(filling.name().as_str()).await;
        let other = place.session_of(filling.name().as_str(), &other[0]).await;
        assert_ne!(session, other);
        give_back(&provider, &all).await;
        give_back(&provider, &filling).await;
        place.until_gone(&name).await;
    });
}

/// Those before us have a greater limit and hold all, so the nearest has nothing more to tell.
#[test]
fn holders_by_a_greater_limit_leave_in_any_order() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let mut theirs = Vec::new();
        for _ in 0..4 {
            theirs.push(place.queue("order", "semaphore-", ACQUIRED).await);
        }
        let (waiting, _) = entering(&provider, "order", permits(1, 2));
        place.until_children("order", 5).await;
        for (left, node) in theirs.iter().enumerate().take(3) {
            assert!(!waiting.is_finished(), "{left} have left");
            place.raw.delete(node, None).await.unwrap();
        }
        let granted = tokio::time::timeout(BOUND, waiting).await;
        let granted = granted.expect("one of two is out").unwrap().unwrap();
        give_back(&provider, &granted).await;
    });
}

/// Three are wanted, and given back one by one.
#[test]
fn a_waiter_for_several_is_served_when_all_are_there() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let third = place.provider().await;
        let mut out = Vec::new();
        for _ in 0..3 {
            out.push(enter(&first, "order", permits(1, 3)).await);
        }
        let (head, _) = entering(&second, "order", permits(2, 3));
        place.until_children("order", 5).await;
        let (next, _) = entering(&third, "order", permits(1, 3));
        place.until_children("order", 6).await;
        give_back(&first, &out[0]).await;
        let refused = try_enter(&first, "order", permits(1, 3)).await;
        let error = refused.expect_err("the head comes first");
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        assert!(!head.is_finished() && !next.is_finished());
        give_back(&first, &out[1]).await;
        let head = head.await.unwrap().unwrap();
        assert!(!next.is_finished());
        give_back(&first, &out[2]).await;
        let next = next.await.unwrap().unwrap();
        give_back(&second, &head).await;
        give_back(&third, &next).await;
        place.until_gone("order").await;
    });
}

/// The server is told of all watches when a connection is made anew, and takes so many.
#[test]
fn more_permits_than_can_be_watched_are_refused() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let refused = try_enter(&provider, "order", permits(100_000, 100_000)).await;
        let error = refused.expect_err("so many nodes");
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("at most"), "{error}");
        assert!(!place.exists("order").await);
        let many = enter(&provider, "order", permits(1_000, 100_000)).await;
        assert_eq!(place.children("order").await.len(), 1_000);
        give_back(&provider, &many).await;
        place.until_gone("order").await;
    });
}
