//! The nodes on the server, and what other programs do there.

use std::process::Stdio;
use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::proxy::Flow;
use lock_tests::zookeeper::SharedServer;
use zookeeper_client::{Acls, CreateMode, Error};

use crate::common::{BOUND, break_off, connected, lock, take, token, waiting, with_server};

#[test]
fn holder_and_waiters_queue_below_the_lock() {
    with_server(|place| async move {
        let (first, second) = (
            connected(place.builder().key_prefix("App:")).await,
            connected(place.builder().key_prefix("App:")).await,
        );
        let guard = take(&first, "order").await;
        let children = place.children("App:order").await;
        assert_eq!(children, ["lock-0000000000"]);
        let (data, stat) = place.child("App:order", &children[0]).await;
        let data = String::from_utf8(data).unwrap();
        let parts: Vec<_> = data.split(':').collect();
        assert_eq!(parts[0], "lk1");
        assert_eq!(parts[2], std::process::id().to_string());
        assert_eq!(parts[3].len(), 32);
        assert_ne!(stat.ephemeral_owner, 0);
        assert_eq!(stat.czxid.unsigned_abs(), token(&guard));

        let waiter = waiting(&second, "order");
        let children = place.until_children("App:order", 2).await;
        guard.release().await.unwrap();
        let guard = waiter.await.unwrap();
        assert_eq!(place.children("App:order").await, children[1..]);
        guard.release().await.unwrap();
        assert!(!place.exists("App:order").await, "removed when empty");
    });
}

#[test]
fn a_lock_may_be_in_the_root() {
    with_server(|place| async move {
        let provider = connected(place.builder().directory("/")).await;
        let name = lock_tests::unique();
        let guard = take(&provider, &name).await;
        assert_eq!(
            place
                .raw
                .list_children(&format!("/{name}"))
                .await
                .unwrap()
                .len(),
            1
        );
        guard.release().await.unwrap();
        // The server's own node is not touched by a lock of its name.
        take(&provider, "zookeeper").await.release().await.unwrap();
        assert!(place.raw.check_stat("/zookeeper").await.unwrap().is_some());
    });
}

#[test]
fn another_program_s_node_excludes_and_is_excluded() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let foreign = place.queue("order", "lock-", b"").await;
        assert!(
            lock(&provider, "order")
                .try_acquire()
                .await
                .unwrap()
                .is_none()
        );
        let waiter = waiting(&provider, "order");
        place.until_children("order", 2).await;
        let behind = place.queue("order", "lock-", b"").await;
        place.raw.delete(&foreign, None).await.unwrap();
        let guard = waiter.await.unwrap();
        assert!(place.raw.check_stat(&behind).await.unwrap().is_some());
        guard.release().await.unwrap();
        assert!(place.exists("order").await, "somebody is there still");
        assert!(
            lock(&provider, "order")
                .try_acquire()
                .await
                .unwrap()
                .is_none()
        );
        place.raw.delete(&behind, None).await.unwrap();
        take(&provider, "order").await.release().await.unwrap();
        assert!(!place.exists("order").await);
    });
}

#[test]
fn other_primitives_on_the_same_node_are_not_in_the_way() {
    with_server(|place| async move {
        let provider = place.provider().await;
        for word in ["read-", "write-", "semaphore-", "lock"] {
            place.queue("order", word, b"").await;
        }
        let guard = take(&provider, "order").await;
        assert_eq!(place.children("order").await.len(), 5);
        guard.release().await.unwrap();
        assert_eq!(place.children("order").await.len(), 4, "left alone");
    });
}

/// A node belongs to the session that created it, whatever stands in it.
#[test]
fn a_node_that_somebody_writes_into_is_still_its_owner_s() {
    with_server(|place| async move {
        for is_interrupted in [false, true] {
            let (proxy, provider) = place.behind_proxy(|builder| builder).await;
            let guard = take(&provider, "order").await;
            let children = place.children("order").await;
            let path = place.path("order", &children[0]);
            // The first time before it is watched, perhaps.
            for _ in 0..3 {
                place.raw.set_data(&path, b"by hand", None).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(!guard.is_lost());
            if is_interrupted {
                proxy.set(|fault| fault.to_server = Flow::Hold);
                let releasing = tokio::spawn(guard.release());
                break_off(&proxy).await;
                releasing.await.unwrap().unwrap();
            } else {
                guard.release().await.unwrap();
            }
            place.until_gone("order").await;
        }
    });
}

/// ZooKeeper's own command line sees the node, and a node that it creates excludes us.
#[test]
fn the_command_line_is_a_witness() {
    with_server(|place| async move {
        let server = SharedServer::find().expect("it runs");
        let ask = |words: &[&str]| {
            let mut command = server.installation().command_line(server.port(), words);
            let output = command.stdin(Stdio::null()).output().expect("Java runs");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let provider = place.provider().await;
        let node = place.node("order");
        let guard = take(&provider, "order").await;
        let listed = ask(&["ls", &node]);
        assert!(listed.contains("[lock-0000000000]"), "{listed}");

        // It goes with no session, so it keeps everybody out until somebody deletes it.
        ask(&["create", "-s", &format!("{node}/lock-"), "by hand"]);
        guard.release().await.unwrap();
        let error = lock(&provider, "order").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        let children = place.until_children("order", 1).await;
        ask(&["delete", &format!("{node}/{}", children[0])]);
        take(&provider, "order").await.release().await.unwrap();
    });
}

#[test]
fn nothing_is_left_by_waiters_that_give_up() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let guard = take(&first, "order").await;
        for round in 0..30 {
            let waiter = waiting(&second, "order");
            if round % 3 > 0 {
                place.until_children("order", 2).await;
            }
            waiter.abort();
            let _ = waiter.await;
            let lock = lock(&second, "order");
            let error = lock
                .acquire_for(Duration::from_millis(5))
                .await
                .unwrap_err();
            // A server that has not answered in these 5 ms has named no holder.
            let kinds = [LockErrorKind::TimedOut, LockErrorKind::ProviderUnavailable];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
        place.until_children("order", 1).await;
        guard.release().await.unwrap();
        place.until_gone("order").await;
    });
}

/// The lock's node comes and goes while others create and remove theirs.
#[test]
fn the_lock_s_node_may_vanish_at_any_time() {
    with_server(|place| async move {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let provider = place.provider().await;
            tasks.spawn(async move {
                let mut last = 0;
                for _ in 0..40 {
                    let guard = take(&provider, "order").await;
                    assert!(token(&guard) > last);
                    last = token(&guard);
                    guard.release().await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        place.until_gone("order").await;
        // Empty directories stay: they are not the locks'.
        assert!(
            place
                .raw
                .check_stat(&place.directory)
                .await
                .unwrap()
                .is_some()
        );
    });
}

#[test]
fn a_directory_that_cannot_have_children_is_an_error() {
    with_server(|place| async move {
        let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        place
            .raw
            .create(&place.directory, b"", &options)
            .await
            .unwrap();
        let provider = place.provider().await;
        let error = lock(&provider, "order")
            .acquire_for(BOUND)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("ephemeral"), "{error}");
        assert!(matches!(
            place.raw.list_children(&place.node("order")).await,
            Err(Error::NoNode)
        ));
    });
}
