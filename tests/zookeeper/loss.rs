//! Every way to lose a lock. Its body is dropped before anybody else gets it, and what it writes late
//! is refused; an overlap checker and a fenced register judge.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{LockError, LockErrorKind, LockGuard, LockProvider, distributed_lock};
use lock_tests::history::Held;
use lock_tests::proxy::Flow;
use lock_tests::{
    FaultProxy, FencedRegister, History, Probe, ZooKeeperServer, boot_nanos, eventually,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::common::{BOUND, DEADLINE, LONG, Place, connected, silence, take, token, with_server};
use crate::thief::close_session;

const LEASE: Duration = Duration::from_secs(4);
const PROBE: &str = env!("CARGO_BIN_EXE_lock-probe");

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

/// A body under the lock, the one that gets the lock after it, and their judges.
struct Trial {
    place: Place,
    history: History,
    register: FencedRegister,
    running: tokio::task::JoinHandle<Result<(), LockError>>,
    told: UnboundedReceiver<u64>,
    stale: u64,
    from: u64,
}

impl Trial {
    async fn begin(place: &Place, holder: Arc<dyn LockProvider>) -> Self {
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

    /// The one node, and the session that it belongs to.
    async fn node(&self) -> (String, i64) {
        let children = self.place.children("order").await;
        let (_, stat) = self.place.child("order", &children[0]).await;
        let path = format!("{}/{}", self.place.node("order"), children[0]);
        (path, stat.ephemeral_owner)
    }

    /// The body must have been dropped by the time at which somebody else can have the lock.
    async fn end(mut self) {
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
}

/// The network fails for good.
fn the_network_fails(fault: impl FnOnce(&FaultProxy) + Send + 'static) {
    with_server(|place| async move {
        let (proxy, holder) = place.behind_proxy(|builder| builder.lease(LEASE)).await;
        let trial = Trial::begin(&place, holder).await;
        let start = Instant::now();
        fault(&proxy);
        let trial = lost_within(LEASE, start, trial).await;
        let counts = proxy.counts();
        let broken = counts.broken.load(std::sync::atomic::Ordering::Relaxed);
        assert!(broken + proxy.swallowed() > 0, "the network failed");
        trial.end().await;
    });
}

/// Waits until the body is dropped; the judges get to know when.
async fn lost_within(bound: Duration, start: Instant, mut trial: Trial) -> Trial {
    let dropped = tokio::time::timeout(bound + BOUND, trial.told.recv()).await;
    let dropped = dropped.expect("the body is dropped").expect("it says when");
    assert!(start.elapsed() < bound, "{:?}", start.elapsed());
    let (sender, told) = unbounded_channel();
    let _ = sender.send(dropped);
    trial.told = told;
    trial
}

#[test]
fn a_cut_connection() {
    the_network_fails(|proxy| {
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
    });
}

#[test]
fn a_connection_cut_towards_the_server() {
    the_network_fails(|proxy| {
        proxy.set(|fault| {
            fault.to_server = Flow::Cut;
            fault.refuse = true;
        });
    });
}

#[test]
fn a_connection_cut_towards_the_client() {
    the_network_fails(|proxy| {
        proxy.set(|fault| {
            fault.to_client = Flow::Cut;
            fault.refuse = true;
        });
    });
}

#[test]
fn a_silent_connection() {
    the_network_fails(silence);
}

/// Only what the server says is lost: it hears the client's signs of life, and keeps the session.
#[test]
fn a_connection_that_is_silent_towards_the_client() {
    with_server(|place| async move {
        let (proxy, holder) = place.behind_proxy(|builder| builder.lease(LEASE)).await;
        let trial = Trial::begin(&place, holder).await;
        let start = Instant::now();
        proxy.set(|fault| fault.to_client = Flow::Swallow);
        let trial = lost_within(LEASE, start, trial).await;
        assert!(proxy.swallowed() > 0, "bytes vanished");
        proxy.heal();
        trial.end().await;
    });
}

#[test]
fn a_session_that_another_client_closes() {
    with_server(|place| async move {
        let trial = Trial::begin(&place, place.provider().await).await;
        let (_, session) = trial.node().await;
        let start = Instant::now();
        close_session(place.port, session);
        // By evidence: the deadline is far away.
        lost_within(LONG / 4, start, trial).await.end().await;
    });
}

#[test]
fn a_node_that_another_client_deletes() {
    with_server(|place| async move {
        let trial = Trial::begin(&place, place.provider().await).await;
        let (path, _) = trial.node().await;
        let start = Instant::now();
        place.raw.delete(&path, None).await.unwrap();
        lost_within(LONG / 4, start, trial).await.end().await;
    });
}

/// It comes back with the session, and ends it only after its whole timeout.
#[test]
fn a_server_that_is_killed_and_started_again() {
    lock_tests::run(DEADLINE, async {
        let Some(mut server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let holder = connected(place.builder().lease(LEASE)).await;
        let trial = Trial::begin(&place, holder).await;
        let start = Instant::now();
        server.kill();
        let trial = lost_within(LEASE, start, trial).await;
        server.start_again();
        trial.end().await;
    });
}

#[test]
fn a_holder_frozen_for_three_leases() {
    with_server(|place| async move {
        let url = place.url(&place.port.to_string(), LEASE);
        let mut frozen = Probe::start(Path::new(PROBE), &url, "order");
        let other = place.provider().await;
        let (register, history) = (FencedRegister::default(), History::default());
        let answer = frozen.ask("acquire", "acquired", BOUND).await;
        let stale: u64 = answer[2].parse().unwrap();
        assert!(register.write("order", stale));
        let valid = frozen.ask("is-lost", "valid", BOUND).await;
        frozen.freeze();
        let stopped = Instant::now();
        history.record(Held {
            name: "order".to_owned(),
            holder: "frozen".to_owned(),
            from: answer[1].parse().unwrap(),
            until: valid[1].parse().unwrap(),
            token: Some(stale),
        });
        while stopped.elapsed() < LEASE * 3 {
            let guard = take(&other, "order").await;
            let from = boot_nanos();
            assert!(register.write("order", token(&guard)));
            tokio::time::sleep(Duration::from_millis(50)).await;
            let held = Held {
                name: "order".to_owned(),
                holder: "other".to_owned(),
                from,
                until: boot_nanos(),
                token: Some(token(&guard)),
            };
            assert!(!guard.is_lost());
            guard.release().await.unwrap();
            history.record(held);
        }
        let last = take(&other, "order").await;
        frozen.thaw();
        frozen.ask("is-lost", "lost", BOUND).await;
        assert!(!register.write("order", stale), "too late");
        frozen.ask("release", "releasing", BOUND).await;
        assert_eq!(frozen.expect("failed", BOUND).await[1], "Lost");
        assert!(!last.is_lost());
        assert_eq!(place.children("order").await.len(), 1, "nor taken away");
        last.release().await.unwrap();
        history.check();
        assert!(history.len() > 2 && history.changes_of_holder() == 1);
    });
}

#[test]
fn a_killed_holder_costs_a_lease() {
    with_server(|place| async move {
        let url = place.url(&place.port.to_string(), LEASE);
        let mut killed = Probe::start(Path::new(PROBE), &url, "order");
        let answer = killed.ask("acquire", "acquired", BOUND).await;
        let start = Instant::now();
        killed.kill();
        let guard = take(&place.provider().await, "order").await;
        assert!(start.elapsed() < LEASE + BOUND / 2, "{:?}", start.elapsed());
        assert!(token(&guard) > answer[2].parse().unwrap());
        guard.release().await.unwrap();
        eventually("nothing is left", BOUND, || async {
            !place.exists("order").await
        })
        .await;
    });
}
