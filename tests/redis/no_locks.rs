//! Values that others have put under the keys of a lock and that are no locks.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockError, LockErrorKind, LockProvider, distributed_lock};
use lock_tests::eventually;

use crate::common::{BOUND, connected, lock, take, with_server};

#[distributed_lock(name = name, on_unavailable = "skip", provider = provider)]
async fn skips(provider: &Arc<dyn LockProvider>, name: &str) -> Result<Option<()>, LockError> {
    Ok(Some(()))
}

fn assert_no_lock(error: &LockError, key: &str, what: &str) {
    assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    assert!(!error.is_retryable(), "{error}");
    let text = error.to_string();
    let expected = format!("the key `{key}` holds {what}");
    assert!(text.contains(&expected), "{text}");
}

const NEVER_EXPIRES: &str = "a value that never expires; no lock does";
const OF_ANOTHER_TYPE: &str = "a value of another type than a lock has";

#[test]
fn a_value_that_never_expires_is_no_lock() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let shared: Arc<dyn LockProvider> = provider.clone();
        let (job, other) = (lock(&provider, "job"), lock(&provider, "other"));
        server.raw.ask::<String>("SET job done").await;
        let error = job.try_acquire().await.unwrap_err();
        assert_no_lock(&error, "job", NEVER_EXPIRES);
        let error = job.acquire_for(BOUND).await.unwrap_err();
        assert_no_lock(&error, "job", NEVER_EXPIRES);
        let error = job.acquire().await.unwrap_err();
        assert_no_lock(&error, "job", NEVER_EXPIRES);
        let error = skips(&shared, "job").await.unwrap_err();
        assert_no_lock(&error, "job", NEVER_EXPIRES);
        assert_eq!(server.raw.get("job").await.as_deref(), Some("done"));
        assert_eq!(server.raw.waiting("job").await, 0, "nobody waits for it");
        // Whatever its bytes and its length are.
        let long = "x".repeat(100_000);
        for value in [long.as_str(), "lk1:it:1:looks_like_one"] {
            server
                .raw
                .ask::<String>(&format!("SET other {value}"))
                .await;
            let error = other.try_acquire().await.unwrap_err();
            assert_no_lock(&error, "other", NEVER_EXPIRES);
        }
        server.raw.ask::<u8>("SETBIT other 7 1").await;
        server.raw.ask::<u8>("SETBIT other 0 1").await;
        let error = other.acquire_for(BOUND).await.unwrap_err();
        assert_no_lock(&error, "other", NEVER_EXPIRES);
        // With an expiry, it is some client's lock.
        server.raw.ask::<u8>("PEXPIRE other 60000").await;
        assert!(other.try_acquire().await.unwrap().is_none());
        server.raw.ask::<u8>("DEL job").await;
        let guard = job.try_acquire().await.unwrap();
        guard.expect("free now").release().await.unwrap();
    });
}

#[test]
fn a_key_of_another_type_is_no_lock() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let shared: Arc<dyn LockProvider> = provider.clone();
        for (make, kind) in [
            ("HSET job field value", "hash"),
            ("RPUSH job value", "list"),
            ("ZADD job 1 value", "zset"),
            ("XADD job * field value", "stream"),
        ] {
            let what = match kind {
                "zset" => "a semaphore, or another sorted set, and no mutex",
                _ => OF_ANOTHER_TYPE,
            };
            server.raw.ask::<redis::Value>(make).await;
            // One that expires is none either.
            for left in ["PERSIST job", "PEXPIRE job 60000"] {
                server.raw.ask::<u8>(left).await;
                let job = lock(&provider, "job");
                for error in [
                    job.try_acquire().await.unwrap_err(),
                    job.acquire_for(BOUND).await.unwrap_err(),
                    skips(&shared, "job").await.unwrap_err(),
                ] {
                    assert_no_lock(&error, "job", what);
                }
            }
            assert_eq!(server.raw.ask::<String>("TYPE job").await, kind);
            server.raw.ask::<u8>("DEL job").await;
        }
    });
}

#[test]
fn what_appears_while_one_waits_is_said() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        server.raw.ask::<u8>("HSET another field value").await;
        server.raw.ask::<String>("SET value done").await;
        for (from, what) in [("another", OF_ANOTHER_TYPE), ("value", NEVER_EXPIRES)] {
            server.raw.ask::<String>("SET order foreign PX 60000").await;
            let waiter = lock(&provider, "order");
            let waiting = tokio::spawn(async move { waiter.acquire_for(BOUND).await });
            server.raw.until_waiting("order", 1).await;
            server
                .raw
                .ask::<String>(&format!("RENAME {from} order"))
                .await;
            let error = waiting.await.unwrap().unwrap_err();
            assert_no_lock(&error, "order", what);
            eventually("nobody waits", BOUND, || async {
                server.raw.waiting("order").await == 0
            })
            .await;
        }
    });
}

#[test]
fn what_appears_in_place_of_a_lock_is_a_loss() {
    with_server(|server| async move {
        let provider = connected(server.builder().lease(Duration::from_millis(600))).await;
        for theirs in ["SET order done", "RENAME another order"] {
            server.raw.ask::<u8>("HSET another field value").await;
            let guard = take(&provider, "order").await;
            let kind: redis::Value = server.raw.ask(theirs).await;
            assert_eq!(kind, redis::Value::Okay);
            guard.lost().await;
            let error = guard.release().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
            // And what is there stays.
            assert_eq!(server.raw.ask::<u8>("EXISTS order").await, 1);
            server.raw.ask::<u8>("DEL order").await;
        }
        // Found by the release itself, with nobody waiting and with somebody who does.
        let long = server.provider_with_long_lease().await;
        for waits in [false, true] {
            server.raw.ask::<u8>("HSET another field value").await;
            let guard = take(&long, "order").await;
            let waiter = lock(&long, "order");
            let waiting = waits
                .then(|| tokio::spawn(async move { waiter.acquire_for(BOUND).await.map(drop) }));
            tokio::task::yield_now().await;
            server.raw.ask::<String>("RENAME another order").await;
            let released = guard.release().await;
            match waiting {
                Some(waiting) => {
                    let error = waiting.await.unwrap().unwrap_err();
                    assert_no_lock(&error, "order", OF_ANOTHER_TYPE);
                }
                None => assert_eq!(released.unwrap_err().kind(), LockErrorKind::Lost),
            }
            server.raw.ask::<u8>("DEL order").await;
        }
    });
}

#[test]
fn what_is_no_queue_is_said_to_who_must_queue() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let other = server.provider().await;
        let text = "SET {queue}:lk1:waiters text";
        server.raw.ask::<String>(text).await;
        // To whom it does not matter it is nothing.
        let guard = take(&provider, "queue").await;
        let queue = lock(&other, "queue");
        assert!(queue.try_acquire().await.unwrap().is_none());
        let error = queue.acquire_for(BOUND).await.unwrap_err();
        assert_no_lock(&error, "{queue}:lk1:waiters", "a value that is no queue");
        guard.release().await.unwrap();
        assert_eq!(server.raw.get("queue").await, None);
        // It appears when somebody waits already.
        server.raw.ask::<u8>("DEL {queue}:lk1:waiters").await;
        server.raw.ask::<String>("SET queue foreign PX 60000").await;
        let waiting = tokio::spawn(async move { queue.acquire_for(BOUND).await });
        server.raw.until_waiting("queue", 1).await;
        server.raw.ask::<String>(text).await;
        let error = waiting.await.unwrap().unwrap_err();
        assert_no_lock(&error, "{queue}:lk1:waiters", "a value that is no queue");
    });
}

/// An error is one line of a log, whatever the caller puts into a name.
#[test]
fn a_key_is_shown_without_control_characters() {
    with_server(|server| async move {
        let provider = server.provider().await;
        server.raw.ask::<String>("SET a\nb done").await;
        let error = lock(&provider, "a\nb").try_acquire().await.unwrap_err();
        assert_no_lock(&error, r"a\nb", NEVER_EXPIRES);
        assert!(!error.to_string().contains('\n'));
    });
}
