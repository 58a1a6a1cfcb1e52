//! Acquisitions and waits that are dropped at any moment.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{FencingToken, LockError, LockProvider, distributed_lock};
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, FencedRegister, eventually, poll_once};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::common::{BOUND, Server, connected, lock, take, with_server};
use crate::network::{builder_behind, proxy_of};
use crate::server_stats::calls;

const ROUNDS: u32 = 50;
/// The time that the network takes each way.
const AWAY: Duration = Duration::from_millis(1);

/// Drops fifty acquisitions, each a little later than the one before: in the gate, on the way to
/// the server and back, after the answer.
///
/// Returns how many were dropped before they were done.
async fn drop_at_every_moment(server: &Server, proxy: &FaultProxy, name: &str) -> u32 {
    let builder = builder_behind(proxy).lease(Duration::from_secs(600));
    let provider = connected(builder).await;
    proxy.set(|fault| {
        fault.to_server = Flow::Delay(AWAY);
        fault.to_client = Flow::Delay(AWAY);
    });
    let asked = calls(&server.raw, "evalsha").await;
    let mut unfinished = 0;
    for round in 0..ROUNDS {
        // A name each, so that none waits for the end of the one before.
        let order = lock(&provider, &format!("{name}{}", round % 5));
        let mut acquiring = pin!(order.acquire_for(BOUND));
        let mut acquired = poll_once(acquiring.as_mut()).await.is_some();
        let pause = AWAY * round / 8;
        if !acquired && !pause.is_zero() {
            acquired = tokio::time::timeout(pause, acquiring).await.is_ok();
        }
        unfinished += u32::from(!acquired);
    }
    eventually("they reached the server nevertheless", BOUND, || async {
        calls(&server.raw, "evalsha").await >= asked + u64::from(ROUNDS) / 2
    })
    .await;
    unfinished
}

#[test]
fn acquisitions_dropped_at_any_moment_leave_no_key() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let unfinished = drop_at_every_moment(&server, &proxy, "order").await;
        assert!(unfinished > ROUNDS / 5, "{unfinished} of {ROUNDS}");
        eventually("only the counter is left", BOUND, || async {
            server.raw.ask::<Vec<String>>("KEYS *").await == ["lk1:fence"]
        })
        .await;
    });
}

#[test]
fn waits_dropped_at_any_moment_leave_no_entry() {
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        let mut held = Vec::new();
        for place in 0..5 {
            held.push(take(&holder, &format!("order{place}")).await);
        }
        let proxy = proxy_of(&server).await;
        let unfinished = drop_at_every_moment(&server, &proxy, "order").await;
        assert_eq!(unfinished, ROUNDS);
        assert!(
            calls(&server.raw, "rpush").await > 0,
            "they were in the queue"
        );
        eventually("the queues are empty", BOUND, || async {
            let queues: Vec<String> = server.raw.ask("KEYS *waiters").await;
            queues.is_empty()
        })
        .await;
        for guard in held {
            guard.release().await.unwrap();
        }
    });
}

/// A body gives its token to a task that goes on after it.
#[distributed_lock(name = "order", provider = locks, timeout = "10s", guard = guard)]
async fn starts_a_task(
    locks: &Arc<dyn LockProvider>,
    started: UnboundedSender<(FencingToken, oneshot::Sender<()>)>,
    stale: oneshot::Sender<bool>,
    register: Arc<FencedRegister>,
) -> Result<(), LockError> {
    let token = guard.fencing_token().expect("a token");
    let (go_on, waits) = oneshot::channel();
    tokio::spawn(async move {
        waits.await.expect("it is told to go on");
        let _ = stale.send(register.write("order", token.get()));
    });
    let _ = started.send((token, go_on));
    std::future::pending().await
}

#[test]
fn what_outlives_a_dropped_body_is_fenced_off() {
    with_server(|server| async move {
        let locks: Arc<dyn LockProvider> = server.provider_with_long_lease().await;
        let register = Arc::new(FencedRegister::default());
        let (starts, mut started) = unbounded_channel();
        let (stale, answered) = oneshot::channel();
        let (token, go_on) = tokio::select! {
            _ = starts_a_task(&locks, starts, stale, register.clone()) => unreachable!("it hangs"),
            started = started.recv() => started.expect("it has started"),
        };
        // The body is gone, and with it the lock; the task is not.
        let next = take(&server.provider().await, "order").await;
        let newer = next.fencing_token().expect("a token");
        assert!(newer > token);
        assert!(register.write("order", newer.get()));
        go_on.send(()).unwrap();
        assert!(!answered.await.unwrap(), "the stale write is refused");
        assert_eq!((register.accepted(), register.refused()), (1, 1));
        next.release().await.unwrap();
    });
}
