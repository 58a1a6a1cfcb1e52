//! Answers that are lost or late, and questions that are asked twice.

use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::eventually;
use lock_tests::proxy::Flow;

use crate::common::{BOUND, connected, lock, take, with_server};
use crate::network::{builder_behind, count, proxy_of};
use crate::server_stats::{calls, life, until_lost_and_gone};

/// A timeout that is long enough for what is delayed on purpose and by a busy machine.
const PATIENT: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(6);

#[test]
fn a_request_that_is_sent_twice_is_granted_once() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy)
            .lease(Duration::from_secs(600))
            .response_timeout(PATIENT);
        let provider = connected(builder).await;
        for waits in [Duration::ZERO, BOUND] {
            take(&provider, "warm-up").await.release().await.unwrap();
            let connections = count(&proxy.counts().connections);
            proxy.set(|fault| fault.to_client = Flow::Hold);
            let provider = provider.clone();
            let taking = tokio::spawn(async move {
                let order = lock(&provider, "order");
                order.acquire_for(waits).await
            });
            eventually("it was taken", BOUND, || async {
                server.raw.get("order").await.is_some()
            })
            .await;
            let owner = server.raw.get("order").await;
            let asked = calls(&server.raw, "evalsha").await;
            let broken = count(&proxy.counts().broken);
            proxy.reset();
            eventually("the answer is lost", BOUND, || async {
                count(&proxy.counts().broken) > broken
            })
            .await;
            proxy.heal();
            let guard = taking.await.unwrap().expect("its own key is no obstacle");
            assert!(count(&proxy.counts().connections) > connections);
            assert!(calls(&server.raw, "evalsha").await > asked, "asked again");
            assert_eq!(server.raw.get("order").await, owner, "and the same");
            guard.release().await.unwrap();
            assert_eq!(server.raw.get("order").await, None);
        }
    });
}

/// A repeated request comes when its first grant was released already. It takes the lock once more,
/// and nobody is there any more who knows of it.
#[test]
fn a_request_that_comes_after_the_release_leaves_no_holder() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy)
            .lease(Duration::from_secs(600))
            .response_timeout(Duration::from_millis(300));
        let provider = connected(builder).await;
        let other = server.provider_with_long_lease().await;
        for held_meanwhile in [false, true] {
            take(&provider, "warm-up").await.release().await.unwrap();
            let delayed = count(&proxy.counts().delayed);
            proxy.set(|fault| fault.to_server = Flow::Delay(Duration::from_secs(3)));
            let taking = {
                let provider = provider.clone();
                tokio::spawn(async move { take(&provider, "order").await })
            };
            eventually("the request is on its way", BOUND, || async {
                count(&proxy.counts().delayed) > delayed
            })
            .await;
            proxy.heal();
            // Another connection serves it, and the first request is still on its way.
            taking.await.unwrap().release().await.unwrap();
            assert_eq!(server.raw.get("order").await, None);
            let held = match held_meanwhile {
                true => Some(take(&other, "order").await),
                false => None,
            };
            let asked = calls(&server.raw, "evalsha").await;
            eventually("it has come", BOUND, || async {
                calls(&server.raw, "evalsha").await > asked
            })
            .await;
            if let Some(held) = held {
                held.release().await.unwrap();
            }
            server.raw.until_gone("order", BOUND).await;
            eventually("nobody waits", BOUND, || async {
                server.raw.waiting("order").await == 0
            })
            .await;
            take(&other, "order").await.release().await.unwrap();
        }
    });
}

#[test]
fn a_late_answer_makes_no_longer_lease() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy)
            .lease(LEASE)
            .response_timeout(PATIENT);
        let provider = connected(builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let start = Instant::now();
        let taking = tokio::spawn(async move { take(&provider, "order").await });
        eventually("a third of its life is over", BOUND, || async {
            let left = life(&server.raw, "order").await;
            left > 0 && left < LEASE.as_millis() as i64 * 2 / 3
        })
        .await;
        // The answer comes, and no renewal goes.
        proxy.set(|fault| fault.to_server = Flow::Swallow);
        proxy.set(|fault| fault.to_client = Flow::Pass);
        let guard = taking.await.unwrap();
        assert!(start.elapsed() >= LEASE / 3, "the answer was late");
        until_lost_and_gone(&guard, &server.raw, "order", LEASE * 2).await;
    });
}

#[test]
fn a_late_answer_to_a_renewal_makes_no_longer_lease() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy)
            .lease(LEASE)
            .response_timeout(PATIENT);
        let provider = connected(builder).await;
        // A renewal of another lock makes the server know the script.
        let other = connected(server.builder().lease(LEASE)).await;
        let renewed = take(&other, "warm-up").await;
        eventually("another lock was renewed", BOUND, || async {
            calls(&server.raw, "pexpire").await > 0
        })
        .await;
        renewed.release().await.unwrap();
        let renewals = calls(&server.raw, "pexpire").await;
        let start = Instant::now();
        let guard = take(&provider, "order").await;
        proxy.set(|fault| fault.to_client = Flow::Hold);
        eventually("it was renewed", BOUND, || async {
            calls(&server.raw, "pexpire").await > renewals
        })
        .await;
        eventually("the answer is late", BOUND, || async {
            life(&server.raw, "order").await < LEASE.as_millis() as i64 * 7 / 8
        })
        .await;
        proxy.set(|fault| fault.to_server = Flow::Swallow);
        proxy.set(|fault| fault.to_client = Flow::Pass);
        until_lost_and_gone(&guard, &server.raw, "order", LEASE * 2).await;
        let held = start.elapsed();
        assert!(held > LEASE * 7 / 6, "the renewal counted: {held:?}");
    });
}

#[test]
fn a_late_grant_makes_no_longer_lease() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy)
            .lease(LEASE)
            .response_timeout(PATIENT);
        let provider = connected(builder).await;
        let holder = server.provider_with_long_lease().await;
        let held = take(&holder, "order").await;
        let owner = server.raw.get("order").await;
        let waiting = tokio::spawn(async move { take(&provider, "order").await });
        server.raw.until_waiting("order", 1).await;
        proxy.set(|fault| fault.to_client = Flow::Hold);
        held.release().await.unwrap();
        assert_ne!(server.raw.get("order").await, owner, "handed over");
        eventually("the message is late", BOUND, || async {
            life(&server.raw, "order").await < LEASE.as_millis() as i64 * 7 / 8
        })
        .await;
        proxy.set(|fault| fault.to_server = Flow::Swallow);
        proxy.set(|fault| fault.to_client = Flow::Pass);
        let guard = waiting.await.unwrap();
        until_lost_and_gone(&guard, &server.raw, "order", LEASE * 2).await;
    });
}

/// A key that is no lock refuses the acquisition, which leaves nothing to undo.
#[test]
fn refused_acquisitions_are_no_storm() {
    with_server(|server| async move {
        const TRIES: u64 = 500;
        // With a long lease, so that no repetition ends by itself.
        let provider = server.provider_with_long_lease().await;
        server.raw.ask::<u8>("HSET order field value").await;
        let before = calls(&server.raw, "eval").await;
        for _ in 0..TRIES {
            let error = lock(&provider, "order").try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let undone = calls(&server.raw, "eval").await - before;
        assert!(undone <= TRIES / 10, "{undone} requests to undo {TRIES}");
        // Nothing else is harmed.
        server.raw.ask::<u8>("DEL order").await;
        take(&provider, "order").await.release().await.unwrap();
    });
}

/// A key that is no queue refuses a wait half-way; the wait is undone, once.
#[test]
fn waits_that_are_refused_half_way_are_no_storm() {
    with_server(|server| async move {
        const TRIES: u64 = 500;
        // With a long lease, so that no repetition ends by itself.
        let provider = server.provider_with_long_lease().await;
        let holder = server.provider_with_long_lease().await;
        let held = take(&holder, "order").await;
        let no_queue = "SET {order}:lk1:waiters text";
        server.raw.ask::<String>(no_queue).await;
        let before = calls(&server.raw, "eval").await;
        for _ in 0..TRIES {
            let waiting = lock(&provider, "order").acquire_for(BOUND).await;
            let error = waiting.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        }
        let undone = async || calls(&server.raw, "eval").await - before;
        eventually("each is undone", BOUND, || async {
            undone().await >= TRIES
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let undone = undone().await;
        assert!(undone <= 2 * TRIES, "{undone} requests to undo {TRIES}");
        // Nothing else is harmed.
        server.raw.ask::<u8>("DEL {order}:lk1:waiters").await;
        held.release().await.unwrap();
        take(&provider, "order").await.release().await.unwrap();
    });
}
