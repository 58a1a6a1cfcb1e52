//! A server that does not answer is not a lock that somebody holds.

use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::eventually;
use lock_tests::proxy::Flow;

use crate::common::{BOUND, lock, proxied, raw_soon, take, token, with_server};

const LEASE: Duration = Duration::from_secs(60);

#[test]
fn a_timeout_while_the_server_is_out_of_reach_is_not_contention() {
    with_server(|server| async move {
        let (proxy, provider) = proxied(&server.process, LEASE).await;
        let held = take(&provider, "held").await;
        let wait = Duration::from_millis(600);
        let of = |name: &'static str| {
            let lock = lock(&provider, name);
            async move { lock.acquire_for(wait).await.unwrap_err().kind() }
        };
        let contender = server.provider().await;
        let contended = lock(&contender, "held").acquire_for(wait).await;
        assert_eq!(contended.unwrap_err().kind(), LockErrorKind::TimedOut);
        // It does not answer, and what was asked is not undone yet; then it cannot be reached.
        proxy.set(|fault| fault.to_client = Flow::Hold);
        assert_eq!(of("order").await, LockErrorKind::ProviderUnavailable);
        assert_eq!(of("order").await, LockErrorKind::ProviderUnavailable);
        let tried = lock(&provider, "order").try_acquire().await.unwrap_err();
        assert_eq!(tried.kind(), LockErrorKind::ProviderUnavailable, "{tried}");
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
        assert_eq!(of("order").await, LockErrorKind::ProviderUnavailable);
        proxy.heal();
        drop(held);
        take(&provider, "order").await.release().await.unwrap();
    });
}

/// The waiter that times out first leaves while another waits on; the last one takes the request
/// back.
#[test]
fn a_server_that_freezes_while_waited_for_is_not_contention() {
    with_server(|server| async move {
        let (holder, provider) = (server.provider().await, server.provider().await);
        let guard = take(&holder, "order").await;
        let of = |timeout| {
            let lock = lock(&provider, "order");
            tokio::spawn(async move { lock.acquire_for(timeout).await.unwrap_err().kind() })
        };
        let brief = of(Duration::from_secs(1));
        server.until_waiting(1).await;
        assert_eq!(brief.await.unwrap(), LockErrorKind::TimedOut);
        server.until_waiting(0).await;

        // The last one, and before anybody can have looked again: a holder was seen.
        let last = of(Duration::from_millis(700));
        server.until_waiting(1).await;
        server.process.freeze();
        assert_eq!(last.await.unwrap(), LockErrorKind::TimedOut);
        server.process.thaw();
        server.until_waiting(0).await;

        let first = of(Duration::from_secs(4));
        let second = of(Duration::from_secs(5));
        server.until_waiting(1).await;
        server.process.freeze();
        assert_eq!(first.await.unwrap(), LockErrorKind::ProviderUnavailable);
        assert_eq!(second.await.unwrap(), LockErrorKind::ProviderUnavailable);
        server.process.thaw();
        server.until_waiting(0).await;
        guard.release().await.unwrap();
        server.until_free(BOUND).await;
    });
}

#[test]
fn a_waiter_outlasts_a_short_outage() {
    with_server(|mut server| async move {
        let (holder, provider) = (server.provider().await, server.provider().await);
        let guard = take(&holder, "order").await;
        let waiting = {
            let provider = provider.clone();
            tokio::spawn(async move { take(&provider, "order").await })
        };
        server.until_waiting(1).await;
        let before = token(&guard);
        server.process.kill();
        server.process.start_again();
        server.raw = raw_soon(&server.process).await;
        let next = waiting.await.unwrap();
        assert!(guard.is_lost());
        assert!(token(&next) > before);
        next.release().await.unwrap();
        server.until_free(BOUND).await;
    });
}

/// The waiter's connection is dead in a way that the server does not see. The request would stand
/// in the queue for as long as the lock is held.
#[test]
fn a_request_that_cannot_be_taken_back_is_ended_from_another_session() {
    with_server(|server| async move {
        let holder = server.provider().await;
        let guard = take(&holder, "order").await;
        let (proxy, provider) = proxied(&server.process, LEASE).await;
        let waiting = {
            let lock = lock(&provider, "order");
            tokio::spawn(async move { lock.acquire().await })
        };
        server.until_waiting(1).await;
        let sessions = server.sessions().await;
        // What is open is dead from now on; what is opened later works.
        proxy.set(|fault| {
            fault.to_server = Flow::Swallow;
            fault.hides_close = true;
        });
        waiting.abort();
        eventually("something is swallowed", BOUND, || async {
            proxy.swallowed() > 0
        })
        .await;
        proxy.set(|fault| fault.to_server = Flow::Pass);
        server.until_waiting(0).await;
        assert!(server.sessions().await <= sessions);
        guard.release().await.unwrap();
        server.until_free(BOUND).await;
    });
}
