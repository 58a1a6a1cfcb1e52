//! Guards and calls that nobody brings to an end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{AcquireRequest, LockError, LockErrorKind, LockProvider, distributed_lock};
use lock_tests::proxy::Flow;
use lock_tests::{eventually, poll_once};

use crate::common::{BOUND, connected, lock, take, with_server};
use crate::network::{builder_behind, proxy_of};
use crate::server_stats::calls;

/// Tasks hold guards while their runtime is shut down.
#[test]
fn two_hundred_runtimes_leave_no_lock() {
    const RUNTIMES: usize = 200;
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let before = calls(&server.raw, "set").await;
        let going = std::thread::spawn(move || {
            for number in 0..RUNTIMES {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                let provider = Arc::clone(&provider);
                let (held, holds) = tokio::sync::oneshot::channel();
                runtime.spawn(async move {
                    let _guard = take(&provider, &format!("order{number}")).await;
                    held.send(()).unwrap();
                    std::future::pending::<()>().await;
                });
                runtime.block_on(holds).unwrap();
            }
        });
        tokio::task::spawn_blocking(|| going.join().unwrap())
            .await
            .unwrap();
        assert!(calls(&server.raw, "set").await - before >= RUNTIMES as u64);
        eventually("every lock is released", BOUND, || async {
            server
                .raw
                .ask::<Vec<String>>("KEYS order*")
                .await
                .is_empty()
        })
        .await;
    });
}

#[distributed_lock(name = "order", provider = locks, max_hold = "500ms")]
async fn hangs(locks: Arc<dyn LockProvider>) -> Result<(), LockError> {
    std::future::pending().await
}

#[test]
fn a_body_that_hangs_gives_the_lock_back() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let mut call = pin!(hangs(first));
        assert!(poll_once(call.as_mut()).await.is_none());
        eventually("it is held", BOUND, || async {
            server.raw.get("order").await.is_some()
        })
        .await;
        let waiting = tokio::spawn(async move { take(&second, "order").await });
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::MaxHoldExceeded);
        waiting.await.unwrap().release().await.unwrap();
    });
}

/// A call that is polled no more cannot drop its body, but it does not hold the lock for ever.
#[test]
fn a_forgotten_call_gives_the_lock_back() {
    with_server(|server| async move {
        let provider = connected(server.builder().lease(Duration::from_secs(1))).await;
        let mut call = Box::pin(hangs(provider));
        tokio::select! {
            _ = call.as_mut() => unreachable!("it hangs"),
            _ = eventually("it is held", BOUND, || async {
                server.raw.get("order").await.is_some()
            }) => {}
        }
        // The body runs by now, or very soon.
        for _ in 0..20 {
            assert!(poll_once(call.as_mut()).await.is_none());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::mem::forget(call);
        server.raw.until_gone("order", BOUND).await;
    });
}

/// A guard that was forgotten is renewed until the process ends, as if it were held, since nobody
/// can tell from outside. Nobody else gets its name meanwhile.
#[test]
fn a_forgotten_guard_is_a_held_one() {
    with_server(|server| async move {
        let provider = connected(server.builder().lease(Duration::from_secs(1))).await;
        std::mem::forget(take(&provider, "order").await);
        let renewed = calls(&server.raw, "pexpire").await;
        eventually("it is renewed", BOUND, || async {
            calls(&server.raw, "pexpire").await >= renewed + 4
        })
        .await;
        let other = server.provider().await;
        assert!(lock(&other, "order").try_acquire().await.unwrap().is_none());
    });
}

/// A provider may be called from any runtime, and by hand. A runtime that ends with a call half-way
/// leaves the connection, or the attempt to make one, to the others.
#[test]
fn a_runtime_that_ends_takes_no_connection_with_it() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let provider = connected(builder_behind(&proxy)).await;
        for is_connected in [true, false] {
            if is_connected {
                // No answer comes meanwhile.
                proxy.set(|fault| fault.to_client = Flow::Hold);
            } else {
                assert_eq!(server.raw.ask::<u64>("CLIENT KILL TYPE pubsub").await, 1);
                // Until the client has noticed.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let called = provider.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let name = format!("elsewhere{is_connected}");
                let (request, _interest) =
                    AcquireRequest::new(name, Duration::from_secs(5), false).unwrap();
                let mut call = called.acquire(&request);
                let polled = runtime.block_on(poll_once(call.as_mut()));
                assert!(polled.is_none(), "it is half-way");
            })
            .join()
            .unwrap();
            proxy.heal();
            take(&provider, "order").await.release().await.unwrap();
        }
    });
}
