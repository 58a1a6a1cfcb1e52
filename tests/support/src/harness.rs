//! Runs a test within bounds, and waits for conditions.

use std::future::poll_fn;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Runs a test on a runtime of its own, and fails it at the deadline even if it blocks its thread.
///
/// # Panics
///
/// If the test panics, or when the deadline passes.
pub fn run(deadline: Duration, test: impl Future<Output = ()> + Send + 'static) {
    let (sender, done) = channel::<()>();
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let test = std::thread::Builder::new().name(name).spawn(move || {
        let _sender = sender;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        runtime.block_on(test);
        runtime.shutdown_background();
    });
    let test = test.expect("a thread can be started");
    match done.recv_timeout(deadline) {
        Err(RecvTimeoutError::Timeout) => panic!("not done after {deadline:?}"),
        _ => test.join().unwrap_or_else(|panic| resume_unwind(panic)),
    }
}

/// Waits until the condition holds and returns how long that took.
///
/// # Panics
///
/// If the condition does not hold within the bound.
pub async fn eventually<F: Future<Output = bool>>(
    what: &str,
    bound: Duration,
    mut condition: impl FnMut() -> F,
) -> Duration {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < bound, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

/// Polls a future once, and returns its output if it completed.
pub async fn poll_once<T>(mut future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Option<T> {
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}
