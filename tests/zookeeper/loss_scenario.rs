//! A lock that is lost, and the judges of it.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockError, LockErrorKind, LockGuard, LockProvider, distributed_lock};
use lock_tests::history::Held;
use lock_tests::{FencedRegister, History, boot_nanos};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::common::{BOUND, Place, take, token};

/// Says when the body began and when it was dropped.
struct Body(UnboundedSender<u64>);

impl Body {
    fn begin(told: UnboundedSender<u64>, guard: &LockGuard) -> Self {
        let _ = told.send(token(guard));
        let _ = told.send(boot_nanos());
        Self(told)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let _ = self.0.send(boot_nanos());
    }
}

#[distributed_lock(name = "order", provider = locks, timeout = "20s", guard = guard)]
async fn endless(
    locks: Arc<dyn LockProvider>,
    told: UnboundedSender<u64>,
) -> Result<(), LockError> {
    let _body = Body::begin(told, guard);
    std::future::pending().await
}

/// A body under the lock, the holder that gets the lock after it, and their judges.
pub(crate) struct LossScenario {
    place: Place,
    history: History,
    register: FencedRegister,
    running: tokio::task::JoinHandle<Result<(), LockError>>,
    told: UnboundedReceiver<u64>,
    stale: u64,
    from: u64,
}

impl LossScenario {
    pub(crate) async fn begin(place: &Place, holder: Arc<dyn LockProvider>) -> Self {
        let (sender, mut told) = unbounded_channel();
        let running = tokio::spawn(endless(holder, sender));
        let stale = told.recv().await.expect("the body begins");
        let from = told.recv().await.expect("the body begins");
        let register = FencedRegister::default();
        assert!(register.write("order", stale));
        Self {
            place: place.clone(),
            history: History::default(),
            register,
            running,
            told,
            stale,
            from,
        }
    }

    /// Returns the path of the one node, and the session that it belongs to.
    pub(crate) async fn node(&self) -> (String, i64) {
        let children = self.place.children("order").await;
        let session = self.place.session_of("order", &children[0]).await;
        (self.place.path("order", &children[0]), session)
    }

    /// Takes the lock as another holder, and checks that the body was dropped before that.
    pub(crate) async fn end(mut self) {
        let next = take(&self.place.provider().await, "order").await;
        let from = boot_nanos();
        let until = tokio::time::timeout(BOUND, self.told.recv()).await;
        let until = until.expect("the body is dropped").expect("it says when");
        let error = self.running.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        for (holder, from, until, token) in [
            ("first", self.from, until, self.stale),
            ("next", from, boot_nanos(), token(&next)),
        ] {
            self.history.record(Held {
                name: "order".to_owned(),
                holder: holder.to_owned(),
                from,
                until,
                token: Some(token),
            });
        }
        self.history.check();
        assert!(self.register.write("order", token(&next)));
        assert!(!self.register.write("order", self.stale), "too late");
        next.release().await.unwrap();
        self.place.until_gone("order").await;
    }

    /// Waits until the body is dropped, and tells the judges when.
    pub(crate) async fn lost_within(mut self, bound: Duration, start: u64) -> Self {
        let dropped = tokio::time::timeout(bound + BOUND, self.told.recv()).await;
        let dropped = dropped.expect("the body is dropped").expect("it says when");
        let took = Duration::from_nanos(dropped.saturating_sub(start));
        assert!(took < bound, "{took:?}");
        let (sender, told) = unbounded_channel();
        let _ = sender.send(dropped);
        self.told = told;
        self
    }
}
