//! The body's locals and arguments are dropped while the lock is still held.

use std::cell::RefCell;
use std::task::Poll;
use std::time::Duration;

use lock_runtime::{LockError, LockErrorKind, distributed_lock};

use crate::support::{is_held, poll_once};

/// Notes, when dropped, whether the lock is held.
struct Witness<'a> {
    what: &'static str,
    name: &'static str,
    log: &'a RefCell<Vec<(&'static str, bool)>>,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        let held = poll_once(is_held(self.name)) == Poll::Ready(true);
        self.log.borrow_mut().push((self.what, held));
    }
}

#[distributed_lock(name = "loss:order", max_hold = "20ms")]
async fn hold_for(
    argument: Witness<'_>,
    log: &RefCell<Vec<(&'static str, bool)>>,
    time: Duration,
) -> Result<(), LockError> {
    let _first = Witness {
        what: "first",
        name: "loss:order",
        log,
    };
    let _second = Witness {
        what: "second",
        name: "loss:order",
        log,
    };
    tokio::time::sleep(time).await;
    drop(argument);
    Ok(())
}

#[tokio::test]
async fn everything_is_dropped_before_the_release() {
    let log = RefCell::new(Vec::new());
    let argument = || Witness {
        what: "argument",
        name: "loss:order",
        log: &log,
    };
    hold_for(argument(), &log, Duration::ZERO).await.unwrap();
    let order = [("argument", true), ("second", true), ("first", true)];
    assert_eq!(log.take(), order);

    let error = hold_for(argument(), &log, Duration::from_secs(60))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::MaxHoldExceeded);
    let order = [("second", true), ("first", true), ("argument", true)];
    assert_eq!(log.take(), order);
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way_releases() {
    let log = RefCell::new(Vec::new());
    let argument = Witness {
        what: "argument",
        name: "loss:order",
        log: &log,
    };
    assert!(poll_once(hold_for(argument, &log, Duration::from_secs(60))).is_pending());
    assert_eq!(
        log.take(),
        [("second", true), ("first", true), ("argument", true)]
    );
    assert!(!is_held("loss:order").await);
}
