//! Faults that meet readers, writers and holders of permits. Each test shows that its fault
//! happened.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lock_runtime::{DistributedSemaphore, LockErrorKind, LockMode, LockProvider};
use lock_tests::any_lock::permits;
use lock_tests::eventually;
use lock_tests::proxy::Flow;

use crate::common::{BOUND, break_off, enter, entering, take, with_server};
use crate::session_takeover::close_session;

const ACQUIRED: &[u8] = b"ACQUIRED";

/// Each mode, and how many nodes it has.
fn modes() -> [(LockMode, usize); 4] {
    [
        (LockMode::Read, 1),
        (LockMode::Write, 1),
        (permits(1, 3), 1),
        (permits(3, 3), 3),
    ]
}

#[test]
fn nodes_whose_answer_is_lost_are_found_again() {
    with_server(|place| async move {
        for (mode, nodes) in modes() {
            let (proxy, provider) = place.behind_proxy(|builder| builder).await;
            take(&provider, "warm-up").await.release().await.unwrap();
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let (entering, _) = entering(&provider, "order", mode);
            let children = place.until_children("order", nodes).await;
            break_off(&proxy).await;
            let grant = entering.await.unwrap().unwrap();
            assert_eq!(place.children("order").await, children, "the first ones");
            if nodes == 3 {
                eventually("each has its permit", BOUND, async || {
                    let mut all = true;
                    for child in &children {
                        all &= place.child("order", child).await.0 == ACQUIRED;
                    }
                    all
                })
                .await;
            }
            provider.release(&grant).await.unwrap();
            place.until_gone("order").await;
        }
    });
}

#[test]
fn nodes_that_nobody_wants_any_more_are_removed() {
    with_server(|place| async move {
        for (mode, nodes) in modes() {
            let (proxy, provider) = place.behind_proxy(|builder| builder).await;
            take(&provider, "warm-up").await.release().await.unwrap();
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let (entering, interest) = entering(&provider, "order", mode);
            place.until_children("order", nodes).await;
            interest.abandon();
            break_off(&proxy).await;
            let error = entering.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
            place.until_gone("order").await;
        }
    });
}

/// Permits of one grant are one lock.
#[test]
fn a_grant_that_lost_a_part_is_lost_and_gives_back_the_rest() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        for lost in 0..3 {
            let all = DistributedSemaphore::on(first.clone(), "order", 3);
            let guard = all.acquire_many_for(3, BOUND).await.unwrap();
            let children = place.until_children("order", 3).await;
            let (waiting, _) = entering(&second, "order", permits(2, 3));
            place.until_children("order", 5).await;
            // It is watched from 20 ms on, or found when it is looked at.
            let path = place.path("order", &children[lost]);
            place.raw.delete(&path, None).await.unwrap();
            tokio::time::timeout(BOUND, guard.lost())
                .await
                .expect("told");
            let waited = waiting.await.unwrap().unwrap();
            place.until_children("order", 2).await;
            let error = guard.release().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
            second.release(&waited).await.unwrap();
            place.until_gone("order").await;
        }
    });
}

#[test]
fn a_waiter_that_lost_a_part_queues_again_and_leaves_nothing() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let held = enter(&first, "order", permits(3, 3)).await;
        let (waiting, _) = entering(&second, "order", permits(3, 3));
        let children = place.until_children("order", 6).await;
        let path = place.path("order", &children[4]);
        place.raw.delete(&path, None).await.unwrap();
        first.release(&held).await.unwrap();
        let granted = waiting.await.unwrap().unwrap();
        let ours = place.until_children("order", 3).await;
        assert!(ours.iter().all(|child| !children.contains(child)), "new");
        second.release(&granted).await.unwrap();
        place.until_gone("order").await;
    });
}

#[test]
fn the_end_of_a_session_is_the_end_of_all_it_has() {
    with_server(|place| async move {
        for (mode, nodes) in modes() {
            let (first, second) = (place.provider().await, place.provider().await);
            let grant = enter(&first, "order", mode).await;
            let children = place.until_children("order", nodes).await;
            let excluded = match mode {
                LockMode::Permits { .. } => permits(3, 3),
                _ => LockMode::Write,
            };
            let (waiting, _) = entering(&second, "order", excluded);
            eventually("it waits", BOUND, async || {
                place.children("order").await.len() > nodes
            })
            .await;
            let start = Instant::now();
            close_session(place.port, place.session_of("order", &children[0]).await);
            let waited = waiting.await.unwrap().unwrap();
            assert!(start.elapsed() < BOUND);
            let error = first.release(&grant).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
            second.release(&waited).await.unwrap();
            place.until_gone("order").await;
        }
    });
}

/// What is written when a permit is granted may be lost with its connection, or overwritten. Then
/// waiters of the .NET library would sleep.
#[test]
fn what_a_permit_says_is_written_again() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let grant = enter(&provider, "order", permits(2, 3)).await;
        for child in place.children("order").await {
            let path = place.path("order", &child);
            place.raw.set_data(&path, b"by hand", None).await.unwrap();
            eventually("it is written again", BOUND, async || {
                place.child("order", &child).await.0 == ACQUIRED
            })
            .await;
        }
        provider.release(&grant).await.unwrap();
        place.until_gone("order").await;
    });
}

/// The server has carried the release out, and somebody else has nodes of the same names by now.
#[test]
fn a_release_whose_answer_is_lost_touches_nobody_else_s_permits() {
    with_server(|place| async move {
        let (proxy, provider) = place.behind_proxy(|builder| builder).await;
        let grant = enter(&provider, "order", permits(2, 3)).await;
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let releasing = tokio::spawn({
            let provider = provider.clone();
            async move { provider.release(&grant).await }
        });
        place.until_gone("order").await;
        let foreign = place.queue("order", "semaphore-", b"").await;
        assert!(foreign.ends_with("-0000000000"));
        break_off(&proxy).await;
        releasing.await.unwrap().unwrap();
        take(&provider, "other").await.release().await.unwrap();
        assert!(place.raw.check_stat(&foreign).await.unwrap().is_some());
    });
}

#[test]
fn permits_and_readers_outlive_their_connection() {
    with_server(|place| async move {
        let lease = Duration::from_secs(6);
        let (proxy, provider) = place.behind_proxy(|builder| builder.lease(lease)).await;
        let many = DistributedSemaphore::on(provider.clone(), "permits", 500);
        let many = many.acquire_many_for(400, BOUND).await.unwrap();
        let read = lock_runtime::DistributedRwLock::on(provider.clone(), "order");
        let read = read.read_for(BOUND).await.unwrap();
        for _ in 0..3 {
            let connections = proxy.counts().connections.load(Ordering::Relaxed);
            proxy.reset();
            eventually("it connects again", BOUND, || async {
                proxy.counts().connections.load(Ordering::Relaxed) > connections
            })
            .await;
            take(&provider, "other").await.release().await.unwrap();
        }
        tokio::time::sleep(lease).await;
        assert!(!many.is_lost() && !read.is_lost());
        many.release().await.unwrap();
        read.release().await.unwrap();
        place.until_gone("permits").await;
        place.until_gone("order").await;
    });
}
