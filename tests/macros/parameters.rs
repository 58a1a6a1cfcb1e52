//! Every parameter is dropped while the lock is held, in the order in which the bare function drops
//! it.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use lock_runtime::{
    DistributedLock, InProcessProvider, LockError, LockErrorKind, LockName, LockProvider,
    distributed_lock,
};

use crate::support::{hold, is_held, poll_once};

thread_local! {
    static DROPPED: RefCell<Vec<(&'static str, bool)>> = const { RefCell::new(Vec::new()) };
}

/// Notes, when dropped, whether the lock of this test is held.
struct Noted(&'static str, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        let held = poll_once(is_held(self.1)) == Poll::Ready(true) || is_held_elsewhere(self.1);
        DROPPED.with_borrow_mut(|dropped| dropped.push((self.0, held)));
    }
}

/// The provider of the functions that name one.
static ELSEWHERE: LazyLock<Arc<dyn LockProvider>> =
    LazyLock::new(|| Arc::new(InProcessProvider::new()));

fn is_held_elsewhere(name: &str) -> bool {
    let lock = DistributedLock::on(ELSEWHERE.clone(), name);
    match poll_once(lock.try_acquire()) {
        Poll::Ready(Ok(guard)) => guard.is_none(),
        Poll::Ready(Err(error)) => error.kind() == LockErrorKind::WouldDeadlock,
        Poll::Pending => false,
    }
}

impl std::fmt::Display for Noted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.1)
    }
}

struct Pair {
    a: Noted,
    #[allow(dead_code, reason = "it is dropped, and that is what is looked at")]
    b: Noted,
}

struct Wrapper(Noted, Noted);

struct Order {
    first: Noted,
    #[allow(dead_code, reason = "it is dropped, and that is what is looked at")]
    second: Noted,
    locks: Arc<dyn LockProvider>,
    wait: Duration,
}

/// Makes a module with each function bare and annotated, and a test that compares them. `$lock` is
/// the lock's name there.
macro_rules! shapes {
    ($($(#[$option:meta])* $shape:ident($lock:ident; $($parameters:tt)*) $body:tt
        called with ($($argument:expr),*);)*) => {
        #[allow(
            unused,
            clippy::toplevel_ref_arg,
            reason = "that they are dropped is what is tested"
        )]
        mod bare {
            use super::*;

            $(pub(super) async fn $shape($($parameters)*) -> Result<(), LockError> $body)*
        }

        #[allow(
            unused,
            clippy::toplevel_ref_arg,
            reason = "that they are dropped is what is tested"
        )]
        mod annotated {
            use super::*;

            $($(#[$option])* pub(super) async fn $shape($($parameters)*) -> Result<(), LockError>
                $body)*
        }

        $(
            #[tokio::test]
            async fn $shape() {
                #[allow(non_upper_case_globals, unused, reason = "named by the arguments")]
                const $lock: &str = concat!("parameters:", stringify!($shape));
                bare::$shape($($argument),*).await.unwrap();
                let bare = DROPPED.take();
                assert!(bare.iter().all(|(_, held)| !held));
                let expected: Vec<_> = bare.into_iter().map(|(what, _)| (what, true)).collect();

                annotated::$shape($($argument),*).await.unwrap();
                assert_eq!(DROPPED.take(), expected, "finished");

                assert!(poll_once(bare::$shape($($argument),*)).is_pending());
                let bare = DROPPED.take().into_iter();
                let bare: Vec<_> = bare.map(|(what, _)| (what, true)).collect();
                assert!(poll_once(annotated::$shape($($argument),*)).is_pending());
                assert_eq!(DROPPED.take(), bare, "cancelled");

                let elsewhere = DistributedLock::on(ELSEWHERE.clone(), $lock);
                let held = (hold($lock).await, elsewhere.acquire().await.unwrap());
                annotated::$shape($($argument),*).await.unwrap_err();
                let parameters = bare.iter().filter(|(what, _)| !what.starts_with("local"));
                assert_eq!(DROPPED.take().len(), parameters.count(), "not acquired");
                drop(held);
            }
        )*
    };
}

async fn pause() {
    tokio::task::yield_now().await;
}

fn pair(lock: &'static str) -> Pair {
    Pair {
        a: Noted("pair.a", lock),
        b: Noted("pair.b", lock),
    }
}

fn order(lock: &'static str) -> Order {
    Order {
        first: Noted("order.first", lock),
        second: Noted("order.second", lock),
        locks: ELSEWHERE.clone(),
        wait: Duration::ZERO,
    }
}

shapes! {
    #[distributed_lock(name = "parameters:unused")]
    unused(lock; a: Noted, b: Noted, c: Noted) {
        pause().await;
        Ok(())
    } called with (Noted("a", lock), Noted("b", lock), Noted("c", lock));

    #[distributed_lock(name = "parameters:underscored")]
    underscored(lock; _a: Noted, _: Noted, _c: Noted, _: (Noted, &str)) {
        pause().await;
        Ok(())
    } called with (Noted("a", lock), Noted("b", lock), Noted("c", lock), (Noted("d", lock), ""));

    #[distributed_lock(name = "parameters:used")]
    used(lock; a: Noted, mut b: Noted, c: Noted, d: Noted) {
        let _local = Noted("local", c.1);
        b.0 = "b again";
        pause().await;
        drop(d);
        let _moved = a;
        Ok(())
    } called with (Noted("a", lock), Noted("b", lock), Noted("c", lock), Noted("d", lock));

    #[distributed_lock(name = "parameters:assigned")]
    assigned(lock; a: Noted, mut b: Noted, c: Noted) {
        b = Noted("local b", c.1);
        pause().await;
        Ok(())
    } called with (Noted("a", lock), Noted("b", lock), Noted("c", lock));

    #[distributed_lock(name = "parameters:in_part")]
    in_part(lock; pair: Pair, c: Noted) {
        let _name = pair.a.1;
        pause().await;
        Ok(())
    } called with (pair(lock), Noted("c", lock));

    #[distributed_lock(name = "parameters:moved_in_part")]
    moved_in_part(lock; x: Noted, pair: Pair, c: Noted) {
        pause().await;
        drop(pair.b);
        Ok(())
    } called with (Noted("x", lock), pair(lock), Noted("c", lock));

    #[distributed_lock(name = "parameters:patterns")]
    patterns(lock;
        x: Noted,
        Pair { a, .. }: Pair,
        y: Noted,
        Wrapper(_, last): Wrapper,
        (_, whole @ Wrapper(..)): (Noted, Wrapper),
        z: Noted
    ) {
        pause().await;
        let _ = (&a, &last, &whole);
        Ok(())
    } called with (
        Noted("x", lock), pair(lock), Noted("y", lock),
        Wrapper(Noted("wrapper.0", lock), Noted("wrapper.1", lock)),
        (Noted("tuple.0", lock), Wrapper(Noted("whole.0", lock), Noted("whole.1", lock))),
        Noted("z", lock)
    );

    #[distributed_lock(name = "parameters:complete_patterns")]
    complete_patterns(lock;
        x: Noted,
        Pair { a, b: renamed }: Pair,
        [first, second]: [Noted; 2],
        (_unused, mut changed): (Noted, Noted)
    ) {
        pause().await;
        changed.0 = "changed";
        drop(renamed);
        Ok(())
    } called with (
        Noted("x", lock), pair(lock), [Noted("first", lock), Noted("second", lock)],
        (Noted("tuple.0", lock), Noted("tuple.1", lock))
    );

    #[distributed_lock(name = "parameters:borrowing_patterns")]
    borrowing_patterns(lock; ref x: Noted, Wrapper(ref mut a, b): Wrapper, y: Noted) {
        a.0 = "changed";
        pause().await;
        let _ = (x, a);
        Ok(())
    } called with (
        Noted("x", lock), Wrapper(Noted("wrapper.0", lock), Noted("wrapper.1", lock)),
        Noted("y", lock)
    );

    #[distributed_lock(name = "{x}")]
    in_the_template(lock; a: Noted, x: Noted, _b: Noted) {
        pause().await;
        Ok(())
    } called with (Noted("a", lock), Noted("x", lock), Noted("b", lock));

    #[distributed_lock(name = "{_x}")]
    underscored_in_the_template(lock; a: Noted, _x: Noted, b: Noted) {
        pause().await;
        Ok(())
    } called with (Noted("a", lock), Noted("x", lock), Noted("b", lock));

    #[distributed_lock(name = "{_x}")]
    underscored_in_both(lock; a: Noted, _x: Noted, b: Noted) {
        let _ = &_x;
        pause().await;
        Ok(())
    } called with (Noted("a", lock), Noted("x", lock), Noted("b", lock));

    #[distributed_lock(name = "{a}")]
    pattern_in_the_template(lock; x: Noted, Pair { a, .. }: Pair, (_, mut y): (Noted, &str)) {
        pause().await;
        y = "";
        let _ = y;
        Ok(())
    } called with (Noted("x", lock), pair(lock), (Noted("tuple.0", lock), ""));

    #[distributed_lock(name = format!("{}", order.first))]
    in_the_name(lock; x: Noted, order: Order, y: Noted) {
        pause().await;
        Ok(())
    } called with (Noted("x", lock), order(lock), Noted("y", lock));

    #[distributed_lock(
        name = order.first.to_string(),
        provider = order.locks,
        timeout = order.wait
    )]
    in_several_options(lock; x: Noted, order: Order, y: Noted) {
        pause().await;
        Ok(())
    } called with (Noted("x", lock), order(lock), Noted("y", lock));

    #[distributed_lock(name = "parameters:in_the_provider", provider = locks)]
    in_the_provider(lock; x: Noted, locks: Arc<dyn LockProvider>, y: Noted) {
        pause().await;
        Ok(())
    } called with (Noted("x", lock), ELSEWHERE.clone(), Noted("y", lock));

    #[distributed_lock(name = "parameters:guarded", guard = guard)]
    guarded(lock; x: Noted, y: impl Sized, guard: Noted) {
        let _ = &guard;
        pause().await;
        let _ = &y;
        Ok(())
    } called with (Noted("x", lock), Noted("y", lock), Noted("guard", lock));

    #[distributed_lock(name = "parameters:in_a_format_string")]
    in_a_format_string(lock; x: Noted, y: Noted) {
        assert_eq!(format!("{x}"), x.1);
        pause().await;
        println!("{y}");
        Ok(())
    } called with (Noted("x", lock), Noted("y", lock));
}

/// The name moves this parameter, so nothing is left of it to drop.
#[distributed_lock(name = name)]
async fn moved_by_the_name(name: LockName, _x: Noted) -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn a_name_may_take_a_parameter() {
    let name = LockName::from("parameters:moved");
    let noted = Noted("x", "parameters:moved");
    moved_by_the_name(name, noted).await.unwrap();
    assert_eq!(DROPPED.take(), [("x", true)]);
}

impl Order {
    #[distributed_lock(name = "{self.first}")]
    async fn named(self, _x: Noted) -> Result<(), LockError> {
        Ok(())
    }

    #[distributed_lock(name = "parameters:self")]
    async fn unnamed(self: Box<Self>, _x: Noted) -> Result<(), LockError> {
        Ok(())
    }

    #[distributed_lock(name = "parameters:self", provider = self.locks)]
    async fn elsewhere(self, _x: Noted) -> Result<(), LockError> {
        Ok(())
    }

    async fn bare(self, _x: Noted) -> Result<(), LockError> {
        Ok(())
    }
}

#[tokio::test]
async fn self_by_value() {
    const LOCK: &str = "parameters:self";
    let expected = [("x", true), ("order.first", true), ("order.second", true)];
    order(LOCK).bare(Noted("x", LOCK)).await.unwrap();
    let bare: Vec<_> = DROPPED
        .take()
        .into_iter()
        .map(|(what, _)| (what, true))
        .collect();
    assert_eq!(bare, expected);
    order(LOCK).named(Noted("x", LOCK)).await.unwrap();
    assert_eq!(DROPPED.take(), expected);
    Box::new(order(LOCK))
        .unnamed(Noted("x", LOCK))
        .await
        .unwrap();
    assert_eq!(DROPPED.take(), expected);
    order(LOCK).elsewhere(Noted("x", LOCK)).await.unwrap();
    assert_eq!(DROPPED.take(), expected);
}

/// Everything is dropped before the outcome is made, and while the lock is held if it was.
#[distributed_lock(
    name = "parameters:outcome",
    max_hold = "10ms",
    on_unavailable = |error| (error.kind(), DROPPED.take())
)]
async fn outcome(
    _x: Noted,
    _: Noted,
    Pair { a, .. }: Pair,
) -> (LockErrorKind, Vec<(&'static str, bool)>) {
    let _ = &a;
    std::future::pending().await
}

#[tokio::test]
async fn dropped_before_the_outcome_is_given() {
    const LOCK: &str = "parameters:outcome";
    let call = || outcome(Noted("x", LOCK), Noted("y", LOCK), pair(LOCK));
    let (kind, dropped) = call().await;
    assert_eq!(kind, LockErrorKind::MaxHoldExceeded);
    assert_eq!(
        dropped,
        [("pair.a", true), ("pair.b", true), ("y", true), ("x", true)]
    );
    let _held = hold(LOCK).await;
    let (kind, dropped) = call().await;
    assert_eq!(kind, LockErrorKind::Contended);
    assert_eq!(dropped.len(), 4);
    assert_eq!(DROPPED.take(), []);
}
