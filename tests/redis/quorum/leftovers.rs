//! What attempts leave behind that fail or are given up.

use std::pin::pin;
use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::poll_once;
use lock_tests::proxy::Flow;

use super::{YOUNG, lock, take, with_servers};

/// The servers have voted, and nobody hears of it.
#[test]
fn votes_whose_answers_are_lost_are_taken_back() {
    with_servers(5, |servers| async move {
        let proxies = servers.proxies().await;
        let parameters = format!("{YOUNG}&response_timeout=300ms&lease=3s");
        let provider = proxies.provider(&parameters).await;
        take(&provider, "order")
            .await
            .release()
            .await
            .expect("held");
        for number in [1, 2, 3] {
            proxies.0[number].set(|fault| fault.to_client = Flow::Swallow);
        }
        let error = lock(&provider, "order").try_acquire().await;
        let error = error.expect_err("two of five answer");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(proxies.0[1].swallowed() > 0);
        // Where it was heard of.
        servers.0[0]
            .raw
            .until_gone("order", Duration::from_secs(1))
            .await;
        servers.0[4]
            .raw
            .until_gone("order", Duration::from_secs(1))
            .await;
        for proxy in &proxies.0 {
            proxy.heal();
            proxy.reset();
        }
        for server in &servers.0 {
            server.raw.until_gone("order", Duration::from_secs(3)).await;
        }
    });
}

#[test]
fn a_waiter_that_gives_up_leaves_nothing() {
    with_servers(3, |servers| async move {
        let (holder, other) = (servers.provider(YOUNG).await, servers.provider(YOUNG).await);
        let guard = take(&holder, "order").await;
        {
            let waiting = lock(&other, "order");
            let mut waiting = pin!(waiting.acquire());
            assert!(poll_once(waiting.as_mut()).await.is_none());
            servers.0[0].raw.until_waiting("order", 1).await;
        }
        servers.0[0].raw.until_waiting("order", 0).await;
        guard.release().await.expect("it was held");
        servers.until_nothing_is_left().await;
    });
}

/// A holder that is out of reach of a server is released there too, as soon as it is reached.
#[test]
fn a_release_reaches_a_server_that_was_away() {
    with_servers(3, |servers| async move {
        let proxies = servers.proxies().await;
        let provider = proxies.provider(&format!("{YOUNG}&lease=30s")).await;
        let guard = take(&provider, "order").await;
        let name = "order";
        lock_tests::eventually("all have voted", Duration::from_secs(2), || async {
            servers.0[2].raw.get(name).await.is_some()
        })
        .await;
        proxies.cut(2);
        guard.release().await.expect("a majority is there");
        assert!(servers.0[2].raw.get(name).await.is_some());
        proxies.0[2].heal();
        servers.0[2]
            .raw
            .until_gone(name, Duration::from_secs(5))
            .await;
    });
}
