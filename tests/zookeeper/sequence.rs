//! The numbers of a lock's nodes near their end. ZooKeeper counts in 32 bits, and a lock that is
//! always wanted gets there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::ZooKeeperServer;
use tokio::task::JoinSet;
use zookeeper_client::{Acls, CreateMode};

use crate::common::{BOUND, DEADLINE, Place, lock, take, token, waiting};

/// What keeps the lock's node, and with it the count, from being removed.
const KEEPER: &str = "keeper";

/// Runs a test on a server that has so many numbers left for the lock `order`.
fn with_numbers_left<F>(left: i32, test: impl FnOnce(Place) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    lock_tests::run(DEADLINE, async move {
        let Some(mut server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let node = place.node("order");
        place.raw.mkdir(&node, &persistent).await.unwrap();
        server.kill();
        server.start_with_count(&node, KEEPER, i32::MAX - (left - 1));
        // It hangs up on clients that were there before; those of a test are new.
        test(Place {
            directory: place.directory.clone(),
            ..Place::on(server.port()).await
        })
        .await;
    });
}

#[test]
fn the_last_numbers_are_served_in_order_and_then_it_is_said() {
    with_numbers_left(3, |place| async move {
        let (first, second, third) = (
            place.provider().await,
            place.provider().await,
            place.provider().await,
        );
        let holder = take(&first, "order").await;
        let next = waiting(&second, "order");
        place.until_children("order", 3).await;
        let last = waiting(&third, "order");
        let children = place.until_children("order", 4).await;
        let numbers = ["lock-2147483645", "lock-2147483646", "lock-2147483647"];
        assert_eq!(children[1..], numbers);
        let beyond = lock(&place.provider().await, "order");
        let error = beyond.acquire_for(BOUND).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("sequence numbers"), "{error}");
        assert_eq!(place.children("order").await[1..], numbers);

        let mut newest = token(&holder);
        assert!(!next.is_finished() && !last.is_finished());
        holder.release().await.unwrap();
        let next = next.await.unwrap();
        assert!(token(&next) > newest && !last.is_finished());
        newest = token(&next);
        next.release().await.unwrap();
        let last = last.await.unwrap();
        assert!(token(&last) > newest);
        newest = token(&last);
        place
            .raw
            .delete(&place.path("order", KEEPER), None)
            .await
            .unwrap();
        last.release().await.unwrap();
        // Nobody was there, so they begin anew.
        let guard = take(&second, "order").await;
        assert_eq!(place.children("order").await, ["lock-0000000000"]);
        assert!(token(&guard) > newest);
        guard.release().await.unwrap();
    });
}

/// Nodes that are created at the same time get numbers beyond the last one. Whoever has such a
/// number does not hold the lock, whatever the others have.
#[test]
fn nobody_holds_beside_another_one_when_the_numbers_end() {
    with_numbers_left(30, |place| async move {
        const PROCESSES: usize = 4;
        const TASKS: usize = 4;
        let held = Arc::new(AtomicBool::new(false));
        let newest = Arc::new(AtomicU64::new(0));
        let refused = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..PROCESSES {
            for _ in 0..TASKS {
                // Each has a session of its own.
                let lock = lock(&place.provider().await, "order");
                let (held, newest) = (Arc::clone(&held), Arc::clone(&newest));
                let refused = Arc::clone(&refused);
                tasks.spawn(async move {
                    for _ in 0..20 {
                        match lock.acquire_for(BOUND).await {
                            Ok(guard) => {
                                assert!(!held.swap(true, Ordering::SeqCst), "two hold it");
                                let before = newest.swap(token(&guard), Ordering::SeqCst);
                                assert!(before < token(&guard), "they are served in order");
                                tokio::time::sleep(Duration::from_millis(1)).await;
                                held.store(false, Ordering::SeqCst);
                                guard.release().await.expect("it was held");
                            }
                            Err(error) => {
                                let said = error.to_string();
                                assert!(said.contains("sequence numbers"), "{error}");
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        }
        tasks.join_all().await;
        assert!(
            refused.load(Ordering::Relaxed) > 0,
            "the numbers have ended"
        );
        place
            .raw
            .delete(&place.path("order", KEEPER), None)
            .await
            .unwrap();
        take(&place.provider().await, "order")
            .await
            .release()
            .await
            .unwrap();
        place.until_gone("order").await;
    });
}
