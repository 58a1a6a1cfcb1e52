//! Readers and writers: their nodes, those of other programs beside them, and who waits for whom.

use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockMode, LockProvider};
use zookeeper_client::EventType;

use crate::common::{enter, entering, lock, try_enter, with_server};

#[test]
fn readers_and_writers_queue_below_the_lock() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let read = enter(&first, "order", LockMode::Read).await;
        let beside = enter(&second, "order", LockMode::Read).await;
        let (write, _) = entering(&second, "order", LockMode::Write);
        let expected = ["read-0000000000", "read-0000000001", "write-0000000002"];
        assert_eq!(place.until_children("order", 3).await, expected);
        let (data, stat) = place.child("order", expected[0]).await;
        assert!(data.starts_with(b"lk1:"));
        let token = read.token().expect("every reader has one").get();
        assert_eq!(token, stat.czxid.unsigned_abs());
        assert!(token < beside.token().unwrap().get());

        first.release(&read).await.unwrap();
        assert!(!write.is_finished(), "the other one reads");
        second.release(&beside).await.unwrap();
        let write = write.await.unwrap().unwrap();
        assert!(write.token() > beside.token());
        let error = try_enter(&first, "order", LockMode::Read)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        second.release(&write).await.unwrap();
        place.until_gone("order").await;
        let read = enter(&first, "order", LockMode::Read).await;
        assert!(
            read.token() > write.token(),
            "names begin anew, tokens do not"
        );
        first.release(&read).await.unwrap();
    });
}

/// A try leaves nothing behind, and is refused at once, by those of its own process too.
#[test]
fn whoever_does_not_wait_is_refused_at_once() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let refused = async |provider, mode| {
            let asked = Instant::now();
            let error = try_enter(provider, "order", mode).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
            assert!(asked.elapsed() < Duration::from_secs(1), "at once");
        };
        let read = enter(&first, "order", LockMode::Read).await;
        for provider in [&first, &second] {
            refused(provider, LockMode::Write).await;
        }
        assert_eq!(place.children("order").await.len(), 1);
        assert!(first.may_share(&read).await.unwrap());
        let (write, interest) = entering(&second, "order", LockMode::Write);
        place.until_children("order", 2).await;
        // Somebody waits to write.
        refused(&first, LockMode::Read).await;
        assert!(!first.may_share(&read).await.unwrap());
        interest.abandon();
        assert!(write.await.unwrap().is_err());
        assert!(first.may_share(&read).await.unwrap());
        let beside = try_enter(&second, "order", LockMode::Read).await.unwrap();
        second.release(&beside).await.unwrap();
        first.release(&read).await.unwrap();
        place.until_gone("order").await;
    });
}

/// As the .NET library has it, and other programs that use its names.
#[test]
fn other_programs_readers_and_writers_exclude_and_are_excluded() {
    with_server(|place| async move {
        let provider = place.provider().await;
        let their_read = place.queue("order", "read-", b"").await;
        let read = enter(&provider, "order", LockMode::Read).await;
        let their_write = place.queue("order", "write-", b"").await;
        assert!(!provider.may_share(&read).await.unwrap());
        let (late, _) = entering(&provider, "order", LockMode::Read);
        let children = place.until_children("order", 4).await;
        provider.release(&read).await.unwrap();
        place.raw.delete(&their_read, None).await.unwrap();
        place.until_children("order", 2).await;
        assert!(!late.is_finished(), "they write now");

        // Another one of theirs is behind our reader, and waits for its node to go.
        let their_last = place.queue("order", "write-", b"").await;
        let ours = place.path("order", &children[3]);
        let (_, _, gone) = place.raw.get_and_watch_data(&ours).await.unwrap();
        place.raw.delete(&their_write, None).await.unwrap();
        let late = late.await.unwrap().unwrap();
        let error = try_enter(&provider, "order", LockMode::Write)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        provider.release(&late).await.unwrap();
        assert_eq!(gone.changed().await.event_type, EventType::NodeDeleted);
        place.raw.delete(&their_last, None).await.unwrap();
        let write = enter(&provider, "order", LockMode::Write).await;
        provider.release(&write).await.unwrap();
    });
}

#[test]
fn mutexes_and_readers_of_one_name_do_not_see_each_other() {
    with_server(|place| async move {
        let (first, second) = (place.provider().await, place.provider().await);
        let mutex = lock(&first, "order").try_acquire().await.unwrap();
        let write = enter(&second, "order", LockMode::Write).await;
        assert_eq!(place.children("order").await.len(), 2);
        mutex.expect("it is free").release().await.unwrap();
        assert_eq!(place.children("order").await.len(), 1, "left alone");
        second.release(&write).await.unwrap();
        place.until_gone("order").await;
    });
}
