//! The body's locals and arguments are dropped while the lock is still held.

use std::cell::RefCell;
use std::task::Poll;
use std::time::Duration;

use lock_runtime::{LockError, LockErrorKind, distributed_lock};

use crate::support::{hold, is_held, poll_once};

/// Notes, when dropped, whether the lock is held.
struct Witness<'a> {
    what: &'static str,
    lock: &'a str,
    log: &'a Log,
}

type Log = RefCell<Vec<(&'static str, bool)>>;

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        let held = poll_once(is_held(self.lock)) == Poll::Ready(true);
        self.log.borrow_mut().push((self.what, held));
    }
}

struct Arguments<'a> {
    used: u32,
    witness: Witness<'a>,
}

#[distributed_lock(name = lock, max_hold = "20ms")]
async fn hold_for(
    lock: &str,
    log: &Log,
    time: Duration,
    in_part: Arguments<'_>,
    _unused: Witness<'_>,
) -> Result<u32, LockError> {
    let witness = |what| Witness { what, lock, log };
    let (_first, _second) = (witness("first"), witness("second"));
    tokio::time::sleep(time).await;
    Ok(in_part.used)
}

fn call<'a>(
    lock: &'a str,
    log: &'a Log,
    time: Duration,
) -> impl Future<Output = Result<u32, LockError>> + 'a {
    let witness = |what| Witness { what, lock, log };
    let in_part = Arguments {
        used: 1,
        witness: witness("in part"),
    };
    assert_eq!(in_part.witness.what, "in part");
    hold_for(lock, log, time, in_part, witness("unused"))
}

/// Checks that everything was dropped, and all of it under the lock.
fn assert_under_the_lock(log: &Log) {
    let mut log = log.take();
    log.sort_unstable();
    assert_eq!(
        log,
        [
            ("first", true),
            ("in part", true),
            ("second", true),
            ("unused", true)
        ]
    );
}

#[tokio::test]
async fn a_body_that_finishes() {
    let log = Log::default();
    assert_eq!(
        call("loss:finished", &log, Duration::ZERO).await.unwrap(),
        1
    );
    assert_under_the_lock(&log);
    assert!(!is_held("loss:finished").await);
}

#[tokio::test]
async fn a_body_that_held_too_long() {
    let log = Log::default();
    let error = call("loss:max-hold", &log, Duration::from_secs(60))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::MaxHoldExceeded);
    assert_under_the_lock(&log);
    assert!(!is_held("loss:max-hold").await);
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way() {
    let log = Log::default();
    assert!(poll_once(call("loss:dropped", &log, Duration::from_secs(60))).is_pending());
    assert_under_the_lock(&log);
    hold("loss:dropped").await.release().await.unwrap();
}

#[tokio::test]
async fn a_body_that_panics() {
    #[distributed_lock(name = "loss:panic")]
    async fn panics() -> Result<(), LockError> {
        panic!("as it should")
    }
    let panic = tokio::spawn(panics()).await.unwrap_err();
    assert!(panic.is_panic());
    hold("loss:panic").await.release().await.unwrap();
}
