//! Who holds a lock is told as far as the nodes say, and no data that is not ours is shown.

use lock_runtime::{DistributedLock, DistributedRwLock, DistributedSemaphore, LockMode};
use lock_tests::any_lock::permits;

use crate::common::{BOUND, enter, entering, with_server};

const SECRET: &[u8] = b"hunter2-of-another-library";

#[test]
fn others_are_told_without_their_data() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let lock = DistributedLock::on(provider.clone(), "order");
        let theirs = place.queue("order", "lock-", SECRET).await;
        let owner = format!("lk1:billing-7f9c:4711:{:032x}", 7);
        place.queue("order", "lock-", owner.as_bytes()).await;
        let state = lock.inspect().await.unwrap();
        assert_eq!(state.holders()[0].label(), "another client");
        assert_eq!((state.holders().len(), state.waiters()), (1, Some(1)));
        assert!(!format!("{state:?}").contains("hunter2"));
        place.raw.delete(&theirs, None).await.unwrap();
        let state = lock.inspect().await.unwrap();
        assert_eq!(state.holders()[0].label(), "billing-7f9c (pid 4711)");
        assert_eq!(state.holders()[0].mode(), Some(LockMode::Exclusive));
        assert_eq!(state.waiters(), Some(0));
        // A node that may not be read is there all the same.
        place.queue("hidden", "lock-", SECRET).await;
        let nobody = [zookeeper_client::Acl::new(
            zookeeper_client::Permission::ADMIN,
            zookeeper_client::AuthId::anyone(),
        )];
        let hidden = place.path("hidden", &place.children("hidden").await[0]);
        place.raw.set_acl(&hidden, &nobody, None).await.unwrap();
        let state = DistributedLock::on(provider, "hidden").inspect().await;
        assert_eq!(state.unwrap().holders()[0].label(), "another client");
    });
}

#[test]
fn readers_before_the_first_writer_are_told() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let lock = DistributedRwLock::on(first.clone(), "order");
        place.queue("order", "read-", b"").await;
        let _read = enter(&first, "order", LockMode::Read).await;
        let (_writes, _) = entering(&second, "order", LockMode::Write);
        place.until_children("order", 3).await;
        let (_late, _) = entering(&second, "order", LockMode::Read);
        place.until_children("order", 4).await;
        let state = lock.inspect().await.unwrap();
        let [theirs, ours] = state.holders() else {
            panic!("{state:?}");
        };
        assert_eq!(theirs.label(), "another client");
        assert!(ours.is_this_process());
        assert!(
            state
                .holders()
                .iter()
                .all(|it| it.mode() == Some(LockMode::Read))
        );
        assert_eq!(state.waiters(), Some(2));
    });
}

/// Who has a permit has written that over the name. So it is told by its session.
#[test]
fn holders_of_permits_are_told_by_their_sessions() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let all = DistributedSemaphore::on(first.clone(), "order", 5);
        let _ours = all.acquire_many_for(2, BOUND).await.unwrap();
        let theirs = place.queue("order", "semaphore-", b"ACQUIRED").await;
        let (_waits, _) = entering(&second, "order", permits(3, 5));
        place.until_children("order", 6).await;
        let state = all.inspect().await.unwrap();
        let [ours, other] = state.holders() else {
            panic!("{state:?}");
        };
        assert!(ours.is_this_process());
        assert_eq!(ours.permits(), Some(2));
        let stat = place.raw.check_stat(&theirs).await.unwrap().unwrap();
        assert_eq!(
            other.label(),
            format!("session {:#x}", stat.ephemeral_owner)
        );
        assert_eq!(other.permits(), Some(1));
        assert_eq!(state.waiters(), Some(1), "three permits, one wait");
        assert_eq!(state.available(), Some(2));
    });
}
