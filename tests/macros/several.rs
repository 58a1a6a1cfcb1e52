//! Several locks: what an array of names makes of a function.

use std::sync::Mutex;
use std::time::Duration;

use lock_runtime::{
    DistributedLock, DistributedRwLock, DistributedSemaphore, LockError, LockErrorKind,
    MultiLockGuard, distributed_lock,
};

use crate::support::assert_send;

fn kind<T: std::fmt::Debug>(answer: Result<T, LockError>) -> (LockErrorKind, String) {
    let error = answer.expect_err("an error");
    let name = error.name().map(ToString::to_string);
    (error.kind(), name.unwrap_or_default())
}

#[distributed_lock(name = ["several:{to}", "several:{from}"], guard = locks)]
async fn transfer<T>(
    from: &str,
    to: &str,
    body: impl AsyncFnOnce(&MultiLockGuard) -> T,
) -> Result<T, LockError> {
    Ok(body(locks).await)
}

fn names(locks: &MultiLockGuard) -> Vec<String> {
    locks.names().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_body_has_all_of_them_in_one_order() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let held = transfer(from, to, async |locks| {
            for name in ["several:a", "several:b"] {
                let lock = DistributedLock::new(name);
                let other = tokio::spawn(async move { lock.try_acquire().await });
                assert!(other.await.unwrap().unwrap().is_none(), "{name} is held");
                assert!(locks.fencing_token(name).is_some());
            }
            assert!(!locks.is_lost());
            names(locks)
        });
        assert_eq!(held.await.unwrap(), ["several:a", "several:b"]);
    }
    let same = transfer("a", "a", async |locks| names(locks)).await;
    assert_eq!(same.unwrap(), ["several:a"]);
    for name in ["several:a", "several:b"] {
        let free = DistributedLock::new(name).try_acquire().await;
        assert!(free.unwrap().is_some(), "it was released");
    }
}

#[tokio::test]
async fn the_error_names_the_one_that_was_not_to_be_had() {
    let held = DistributedLock::new("several:d").acquire().await.unwrap();
    let refused = transfer("d", "c", async |_| ()).await;
    let contended = (LockErrorKind::Contended, "several:d".to_owned());
    assert_eq!(kind(refused), contended);
    let first = DistributedLock::new("several:c").try_acquire().await;
    assert!(first.unwrap().is_some(), "it was given back");
    drop(held);
}

#[tokio::test]
async fn a_call_inside_that_wants_one_of_them_would_wait_for_itself() {
    let inner = transfer("e", "f", async |_| {
        let lower = transfer("0", "f", async |_| ()).await;
        let free = DistributedLock::new("several:0").try_acquire().await;
        assert!(free.unwrap().is_some(), "it was never taken");
        // Others are no wait for itself.
        transfer("g", "h", async |_| ()).await.unwrap();
        lower
    });
    let refused = kind(inner.await.unwrap());
    assert_eq!(refused, (LockErrorKind::WouldDeadlock, "several:f".into()));
    let single = transfer("e", "f", async |_| {
        DistributedLock::new("several:e").acquire().await.map(drop)
    });
    let refused = kind(single.await.unwrap());
    assert_eq!(refused, (LockErrorKind::WouldDeadlock, "several:e".into()));
    // Nothing is left of what the task has held.
    transfer("e", "f", async |_| ()).await.unwrap();
}

#[distributed_lock(name = ["several:r1", "several:r2"], mode = "read", guard = locks)]
async fn read(inside: impl Future<Output = ()>) -> Result<usize, LockError> {
    inside.await;
    Ok(locks.tokens().count())
}

#[distributed_lock(name = ["several:r2", "several:r1"], mode = "write")]
async fn write() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = ["several:p1", "several:p2"], permits = 2, take = take, guard = locks)]
async fn take(take: u32, inside: impl Future<Output = ()>) -> Result<usize, LockError> {
    inside.await;
    Ok(locks.tokens().count())
}

#[tokio::test]
async fn the_mode_is_that_of_all() {
    let tokens = read(async {
        // A body that reads may read again.
        read(async {}).await.unwrap();
        assert_eq!(kind(write().await).0, LockErrorKind::WouldDeadlock);
        let beside = tokio::spawn(read(async {})).await.unwrap();
        assert_eq!(beside.unwrap(), 2);
        let alone = tokio::spawn(write()).await.unwrap();
        assert_eq!(kind(alone), (LockErrorKind::Contended, "several:r1".into()));
    });
    assert_eq!(tokens.await.unwrap(), 2);
    write().await.unwrap();
    let free = DistributedRwLock::new("several:r2").try_write().await;
    assert!(free.unwrap().is_some(), "nobody reads");
    let tokens = take(1, async {
        take(1, async {}).await.unwrap();
        assert_eq!(
            kind(take(2, async {}).await).0,
            LockErrorKind::WouldDeadlock
        );
        let other = tokio::spawn(take(2, async {})).await.unwrap();
        assert_eq!(kind(other), (LockErrorKind::Contended, "several:p1".into()));
    });
    assert_eq!(tokens.await.unwrap(), 0);
    let all = DistributedSemaphore::new("several:p2", 2);
    assert!(all.try_acquire_many(2).await.unwrap().is_some());
}

static EVALUATED: Mutex<Vec<&str>> = Mutex::new(Vec::new());

fn noted<T>(what: &'static str, value: T) -> T {
    EVALUATED.lock().unwrap().push(what);
    value
}

#[distributed_lock(
    timeout = noted("timeout", Duration::ZERO),
    permits = noted("permits", 3),
    name = [noted("second", "several:2"), "several:{id}", noted("first", "several:1")],
    on_unavailable = "skip"
)]
async fn evaluated(id: u32) -> Option<u32> {
    noted("body", Some(id))
}

#[tokio::test]
async fn each_expression_is_evaluated_once_and_in_order() {
    let call = evaluated(3);
    assert!(EVALUATED.lock().unwrap().is_empty());
    assert_eq!(call.await, Some(3));
    let order = EVALUATED.lock().unwrap().clone();
    assert_eq!(order, ["second", "first", "permits", "timeout", "body"]);
}

#[distributed_lock(
    name = ["several:m1", "several:m2"],
    timeout = "5s",
    lease = "30s",
    max_hold = "50ms",
    min_hold = "1ms",
    release = "background"
)]
async fn too_long() -> Result<(), LockError> {
    std::future::pending().await
}

#[tokio::test]
async fn max_hold_ends_the_body() {
    let ended = kind(assert_send(too_long()).await);
    assert_eq!(ended, (LockErrorKind::MaxHoldExceeded, "several:m1".into()));
    for name in ["several:m1", "several:m2"] {
        let lock = DistributedLock::new(name);
        drop(lock.acquire_for(Duration::from_secs(10)).await.unwrap());
    }
}
