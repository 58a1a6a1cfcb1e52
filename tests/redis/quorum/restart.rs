//! Servers that come back without their data.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockErrorKind, LockGuard, LockProvider};

use super::{Servers, YOUNG, lock, take, timed, with_servers};

/// Servers count their age in whole seconds.
const DELAYED: &str = "lease=2s&longest_lease=2s&restart_delay=2s&response_timeout=500ms";
const UNPROTECTED: &str = "lease=2s&longest_lease=2s&restart_delay=0s&response_timeout=500ms";

/// A client holds a lock by all servers of three but `away`, and `restarted` restarts without its
/// data, out of the holder's reach. Returns the guard, and a client that has all three.
///
/// No client passes the first server by, whose queue they use. So it is one of the two.
async fn forgotten(
    servers: &mut Servers,
    (away, restarted): (usize, usize),
    parameters: &str,
) -> (LockGuard, Arc<dyn LockProvider>) {
    let proxies = servers.proxies().await;
    proxies.cut(away);
    let holder = proxies.provider(parameters).await;
    let guard = take(&holder, "order").await;
    assert!(servers.0[away].raw.get("order").await.is_none());
    proxies.cut(restarted);
    servers.0[restarted].process.restart_empty();
    let other = servers.provider(parameters).await;
    // The proxies stay as they are until the test is over.
    std::mem::forget(proxies);
    (guard, other)
}

const CASES: [(usize, usize); 2] = [(2, 0), (0, 1)];

/// What the delay is for.
#[test]
fn without_the_delay_there_are_two_holders() {
    for case in CASES {
        with_servers(3, move |mut servers| async move {
            let (guard, other) = forgotten(&mut servers, case, UNPROTECTED).await;
            let second = lock(&other, "order")
                .acquire_for(Duration::from_secs(1))
                .await;
            let second = second.expect("two servers know nothing of the first");
            assert!(!guard.is_lost() && !second.is_lost(), "both hold it");
        });
    }
}

#[test]
fn with_the_delay_there_is_one() {
    for case in CASES {
        with_servers(3, move |mut servers| async move {
            let (guard, other) = forgotten(&mut servers, case, DELAYED).await;
            let second = tokio::spawn(async move { take(&other, "order").await });
            let mut lost = guard.lost();
            loop {
                let looking = tokio::time::sleep(Duration::from_millis(1));
                tokio::select! {
                    _ = &mut lost => break,
                    () = looking => assert!(!second.is_finished(), "two hold it"),
                }
            }
            // Once the restarted server may vote, it is granted.
            let _second = second.await.expect("no panic");
        });
    }
}

#[test]
fn young_servers_are_no_majority() {
    with_servers(3, |servers| async move {
        let provider = servers.provider(DELAYED).await;
        let error = lock(&provider, "order").try_acquire().await;
        let error = error.expect_err("none of them may vote");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(error.to_string().contains("`restart_delay` ago"), "{error}");
        let (_guard, took) = timed(take(&provider, "order")).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
}

/// A held lock is put back on a server that has forgotten it.
#[test]
fn a_lock_outlives_a_rolling_restart() {
    with_servers(3, |mut servers| async move {
        let provider = servers.provider(DELAYED).await;
        let other = servers.provider(DELAYED).await;
        let guard = take(&provider, "order").await;
        for number in 0..3 {
            servers.0[number].process.restart_empty();
            servers.look_again(number).await;
            // Its age, cut to whole seconds, has passed the delay; and then comes a renewal.
            tokio::time::sleep(Duration::from_millis(5_000)).await;
            assert!(!guard.is_lost(), "after the restart of {number}");
            let key = servers.0[number].raw.get("order").await;
            assert!(key.is_some(), "it is not back on {number}");
        }
        let tried = lock(&other, "order").try_acquire().await;
        assert!(tried.expect("a majority answers").is_none());
        guard.release().await.expect("it was held throughout");
        servers.until_nothing_is_left().await;
    });
}

#[test]
fn a_renewal_takes_no_vote_from_another() {
    with_servers(3, |servers| async move {
        let provider = servers.provider(&format!("{YOUNG}&lease=1s")).await;
        let guard = take(&provider, "order").await;
        // As after a restart, but that somebody else has come first.
        servers.0[2]
            .raw
            .ask::<String>("SET order foreign PX 60000")
            .await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert!(!guard.is_lost());
        assert_eq!(
            servers.0[2].raw.get("order").await.as_deref(),
            Some("foreign")
        );
        servers.0[1]
            .raw
            .ask::<String>("SET order foreign PX 60000")
            .await;
        let (_, took) = timed(guard.lost()).await;
        // At the next renewal, which is due every third of the lease.
        assert!(took < Duration::from_millis(600), "{took:?}");
    });
}
