//! Servers that are gone, silent or slow.

use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::eventually;

use super::{YOUNG, lock, take, timed, token, with_servers};
use crate::common::BOUND;

/// So long an answer may take in these tests, and a call longer by this.
const PATIENCE: Duration = Duration::from_millis(500);
const BESIDES: Duration = Duration::from_millis(700);
const PARAMETERS: &str = "restart_delay=0s&response_timeout=500ms&connect_timeout=1s";

#[test]
fn a_minority_may_be_killed() {
    with_servers(5, |mut servers| async move {
        let provider = servers.provider(YOUNG).await;
        let mut last = 0;
        // The first of them has the queue.
        for number in [0, 3] {
            let guard = take(&provider, "order").await;
            assert!(token(&guard) > last);
            last = token(&guard);
            servers.0[number].process.kill();
            guard.release().await.expect("a majority is there");
            let (guard, took) = timed(take(&provider, "order")).await;
            assert!(took < Duration::from_secs(1), "{took:?}");
            assert!(token(&guard) > last);
            last = token(&guard);
            guard.release().await.expect("a majority is there");
        }
    });
}

#[test]
fn a_frozen_minority_delays_nobody_for_long() {
    with_servers(5, |servers| async move {
        let provider = servers.provider(PARAMETERS).await;
        take(&provider, "order")
            .await
            .release()
            .await
            .expect("held");
        // Neither has the queue.
        for number in [2, 4] {
            servers.0[number].process.process().freeze();
        }
        for round in 0..30 {
            let (guard, took) = timed(take(&provider, "order")).await;
            assert!(took < Duration::from_millis(250), "{round}: {took:?}");
            let (released, took) = timed(guard.release()).await;
            released.expect("a majority is there");
            assert!(took < Duration::from_millis(250), "{round}: {took:?}");
        }
        for number in [2, 4] {
            servers.0[number].process.process().thaw();
        }
        servers.until_nothing_is_left().await;
    });
}

#[test]
fn a_waiter_outlives_the_server_of_its_queue() {
    for kills in [true, false] {
        with_servers(3, move |mut servers| async move {
            let parameters = format!("{PARAMETERS}&lease=3s");
            let holder = servers.provider(&parameters).await;
            let other = servers.provider(&parameters).await;
            let guard = take(&holder, "order").await;
            let waiting = tokio::spawn(async move { take(&other, "order").await });
            servers.0[0].raw.until_waiting("order", 1).await;
            match kills {
                true => servers.0[0].process.kill(),
                false => servers.0[0].process.process().freeze(),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(!waiting.is_finished() && !guard.is_lost());
            let last = token(&guard);
            let released = std::time::Instant::now();
            guard.release().await.expect("a majority is there");
            let guard = waiting.await.expect("no panic");
            let took = released.elapsed();
            // It looks after a third of a lease, and gives the server up after its patience.
            assert!(
                took < Duration::from_secs(1) + PATIENCE + BESIDES,
                "{took:?}"
            );
            assert!(token(&guard) > last);
        });
    }
}

/// Nobody is said to hold a lock when it is not known.
#[test]
fn without_a_majority_nothing_is_contended() {
    for kills in [true, false] {
        with_servers(3, move |mut servers| async move {
            let holder = servers.provider(PARAMETERS).await;
            let other = servers.provider(PARAMETERS).await;
            let guard = take(&holder, "held").await;
            for number in [1, 2] {
                match kills {
                    true => servers.0[number].process.kill(),
                    false => servers.0[number].process.process().freeze(),
                }
            }
            for name in ["held", "free"] {
                for attempt in 0..3 {
                    let (tried, took) = timed(lock(&other, name).try_acquire()).await;
                    let error = tried.expect_err(name);
                    assert_eq!(
                        error.kind(),
                        LockErrorKind::ProviderUnavailable,
                        "{name} {attempt}: {error}"
                    );
                    // The first request finds a silent server, the next one does not.
                    assert!(took < PATIENCE * 2 + BESIDES, "{name} {attempt}: {took:?}");
                }
                let waited = lock(&other, name).acquire_for(Duration::from_secs(2)).await;
                let error = waited.expect_err(name);
                assert_eq!(
                    error.kind(),
                    LockErrorKind::ProviderUnavailable,
                    "{name}: {error}"
                );
            }
            drop(guard);
            // Nothing of that is left on the server that answered.
            servers.0[0].raw.until_nothing_is_left().await;
            for number in [1, 2] {
                match kills {
                    true => servers.0[number].process.restart_empty(),
                    false => servers.0[number].process.process().thaw(),
                }
            }
            let (_guard, took) = timed(take(&other, "free")).await;
            assert!(took < Duration::from_secs(3), "{took:?}");
        });
    }
}

/// A caller that waits hears of it when its timeout passes, though a server has named a holder.
#[test]
fn a_waiter_is_told_that_the_majority_is_gone() {
    with_servers(3, |mut servers| async move {
        let parameters = format!("{PARAMETERS}&failover_timeout=1s");
        let holder = servers.provider(&parameters).await;
        let other = servers.provider(&parameters).await;
        let _guard = take(&holder, "order").await;
        let waiting = tokio::spawn({
            let other = other.clone();
            async move { lock(&other, "order").acquire_for(BOUND).await }
        });
        servers.0[0].raw.until_waiting("order", 1).await;
        servers.0[1].process.kill();
        servers.0[2].process.kill();
        let (waited, took) = timed(waiting).await;
        let error = waited.expect("no panic").expect_err("no majority");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        eventually("it has left the queue", BOUND, || async {
            servers.0[0].raw.waiting("order").await == 0
        })
        .await;
    });
}

#[test]
fn a_holder_without_a_majority_is_lost_at_its_deadline() {
    with_servers(3, |mut servers| async move {
        let parameters = format!("{PARAMETERS}&lease=2s");
        let provider = servers.provider(&parameters).await;
        let (guard, _) = timed(take(&provider, "order")).await;
        servers.0[1].process.kill();
        servers.0[2].process.kill();
        let (_, took) = timed(guard.lost()).await;
        assert!(took > Duration::from_millis(1_000), "{took:?}");
        assert!(took < Duration::from_millis(2_100), "{took:?}");
    });
}
