//! Renewals that fail, that come too late, and that are on their way when the lock is released.

use std::time::Duration;

use lock_tests::eventually;
use lock_tests::proxy::Flow;

use crate::common::{BOUND, connected, take, with_server};
use crate::network::{builder_behind, count, proxy_of, swallow_all};
use crate::watch::{calls, life, until_lost_and_gone};

#[test]
fn a_few_failed_renewals_are_no_loss() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let provider = connected(builder_behind(&proxy).lease(Duration::from_secs(6))).await;
        let guard = take(&provider, "order").await;
        for failures in [1, 2, 4] {
            let refused = count(&proxy.counts().refused);
            proxy.set(|fault| fault.refuse = true);
            proxy.reset();
            eventually("renewals fail", BOUND, || async {
                count(&proxy.counts().refused) >= refused + failures
            })
            .await;
            let renewed = calls(&server.raw, "pexpire").await;
            proxy.heal();
            eventually("one succeeds", BOUND, || async {
                calls(&server.raw, "pexpire").await > renewed
            })
            .await;
            assert!(!guard.is_lost());
        }
        guard.release().await.unwrap();
    });
}

#[test]
fn a_holder_that_cannot_renew_is_lost_by_the_end_of_its_lease() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let provider = connected(builder_behind(&proxy).lease(Duration::from_secs(2))).await;
        let guard = take(&provider, "order").await;
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
        until_lost_and_gone(&guard, &server.raw, "order", BOUND).await;
        assert!(count(&proxy.counts().refused) > 1, "it was tried again");
        guard.lost().await;
    });
}

#[test]
fn a_renewal_on_its_way_does_not_outlive_the_release() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let provider = connected(builder_behind(&proxy).lease(Duration::from_millis(200))).await;
        proxy.set(|fault| fault.to_server = Flow::Delay(Duration::from_millis(5)));
        let renewed = calls(&server.raw, "pexpire").await;
        for round in 0..30 {
            let guard = take(&provider, "order").await;
            // Renewals are due after 67 ms; some are under way when it is released.
            tokio::time::sleep(Duration::from_millis(55 + round % 15)).await;
            // On a busy machine it may have lapsed.
            let _ = guard.release().await;
            server.raw.until_gone("order", BOUND).await;
            assert!(server.raw.set_nx("order", "foreign").await);
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(server.raw.get("order").await.as_deref(), Some("foreign"));
            assert!(life(&server.raw, "order").await > 50_000);
            server.raw.ask::<u8>("DEL order").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(server.raw.get("order").await, None, "nor is it made anew");
        }
        assert!(
            calls(&server.raw, "pexpire").await > renewed,
            "it was renewed"
        );
    });
}

#[test]
fn a_release_after_the_lease_touches_nobody_elses_lock() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let first = connected(builder_behind(&proxy).lease(Duration::from_secs(1))).await;
        let second = server.provider_with_long_lease().await;
        for dropped in [false, true] {
            let stale = take(&first, "order").await;
            swallow_all(&proxy);
            let waiting = {
                let second = second.clone();
                tokio::spawn(async move { take(&second, "order").await })
            };
            let guard = waiting.await.unwrap();
            assert!(proxy.swallowed() > 0, "renewals vanished");
            assert!(stale.is_lost());
            assert!(guard.fencing_token() > stale.fencing_token());
            let owner = server.raw.get("order").await;
            proxy.heal();
            if dropped {
                drop(stale);
            } else {
                stale.release().await.unwrap_err();
            }
            // The next request of that process comes after whatever it still had to send.
            take(&first, "other").await.release().await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(server.raw.get("order").await, owner);
            assert!(life(&server.raw, "order").await > 500_000, "nor shortened");
            guard.release().await.unwrap();
        }
    });
}

/// A peer that is gone without a word is found out by the system: an idle connection is probed.
#[test]
#[cfg(target_os = "linux")]
fn idle_connections_are_probed() {
    with_server(|server| async move {
        let provider = connected(server.builder().lease(Duration::from_secs(8))).await;
        let port = format!(":{:04X}", server.process.port());
        let timers = || {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of connections");
            let rows = table.lines().map(|row| row.split_whitespace().collect());
            rows.filter(|row: &Vec<_>| row[2].ends_with(&port) && row[3] == "01")
                .map(|row| row[5].to_owned())
                .collect::<Vec<_>>()
        };
        // Timer 2 is that of keep-alive probes; the time to the next one is in hundredths of a
        // second. The other connection is the test's own.
        eventually("the connection is idle", BOUND, || async {
            timers().iter().any(|timer| timer.starts_with("02:"))
        })
        .await;
        let timers = timers();
        let next = timers.iter().find_map(|timer| timer.strip_prefix("02:"));
        let next = u64::from_str_radix(next.expect("a timer"), 16).unwrap();
        assert!(next <= 8 * 100 / 3, "probed after {next} hundredths");
        drop(provider);
    });
}
