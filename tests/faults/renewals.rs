//! Renewals that fail, that come too late, and that are on their way when the lock is released.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{AcquireRequest, LockProvider};
use lock_tests::eventually;
use lock_tests::proxy::Flow;

use crate::common::{BOUND, connected, lock, take, with_server};
use crate::network::{builder_behind, count, proxy_of, swallow_all};
use crate::server_stats::{calls, life, scripts_about, until_lost_and_gone, write_down_all};

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

/// The renewal is answered when the lock is no longer held, and no other renewal follows.
#[test]
fn a_renewal_that_is_answered_after_the_release_is_the_last() {
    const LEASE: Duration = Duration::from_secs(9);
    with_server(|server| async move {
        let raw = &server.raw;
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy).response_timeout(LEASE);
        let provider = connected(builder.lease(LEASE)).await;
        write_down_all(raw).await;
        // The server comes to know the scripts.
        let brief = lock(&provider, "warm-up").lease(LEASE / 9);
        let guard = brief.acquire().await.unwrap();
        eventually("it is renewed", BOUND, || async {
            calls(raw, "pexpire").await > 0
        })
        .await;
        guard.release().await.unwrap();

        let guard = take(&provider, "order").await;
        let owner = raw.get("order").await.unwrap();
        let renewed = calls(raw, "pexpire").await;
        let delayed = count(&proxy.counts().delayed);
        proxy.set(|fault| fault.to_server = Flow::Delay(LEASE / 12));
        eventually("a renewal is on its way", BOUND, || async {
            count(&proxy.counts().delayed) > delayed
        })
        .await;
        assert_eq!(calls(raw, "pexpire").await, renewed, "and not there yet");
        guard.release().await.unwrap();
        assert_eq!(calls(raw, "pexpire").await, renewed + 1, "it came before");
        assert_eq!(raw.get("order").await, None);
        let asked = scripts_about(raw, &owner).await;
        assert_eq!(asked.len(), 3, "taken, renewed and released: {asked:#?}");
        // The next one would come after a third of the lease.
        let until = Instant::now() + LEASE / 3 + Duration::from_millis(500);
        while Instant::now() < until {
            assert_eq!(raw.get("order").await, None, "the key has come back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            scripts_about(raw, &owner).await,
            asked,
            "something is sent for a lock that nobody has"
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

/// The system probes an idle connection, and so finds out about a peer that is gone without a word.
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

/// A connection whose bytes are not taken is given up in time for another one to renew the lock.
#[test]
#[cfg(target_os = "linux")]
fn connections_are_given_up_before_the_lease_is_over() {
    use rustix::net::{SocketAddrV4, getpeername, sockopt};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    with_server(|server| async move {
        let lease = Duration::from_secs(12);
        let provider = connected(server.builder().lease(lease)).await;
        let itself = pidfd_open(getpid(), PidfdFlags::empty()).expect("this process");
        let mut found = 0;
        for file in std::fs::read_dir("/proc/self/fd").expect("the open files") {
            let number = file.unwrap().file_name().into_string().unwrap();
            let number = number.parse().unwrap();
            // Other tests open and close theirs.
            let Ok(socket) = pidfd_getfd(&itself, number, PidfdGetfdFlags::empty()) else {
                continue;
            };
            let peer = getpeername(&socket).ok().flatten();
            let peer = peer.and_then(|peer| SocketAddrV4::try_from(peer).ok());
            let keeps_alive = sockopt::socket_keepalive(&socket).unwrap_or(false);
            // That of the test itself has no such settings.
            if peer.is_none_or(|peer| peer.port() != server.process.port()) || !keeps_alive {
                continue;
            }
            found += 1;
            let patience = sockopt::tcp_user_timeout(&socket).unwrap();
            let patience = Duration::from_millis(patience.into());
            assert!(!patience.is_zero() && patience <= lease / 3, "{patience:?}");
            let idle = sockopt::tcp_keepidle(&socket).unwrap();
            let interval = sockopt::tcp_keepintvl(&socket).unwrap();
            let probed = idle + interval * sockopt::tcp_keepcnt(&socket).unwrap();
            assert!(probed <= lease / 3, "{idle:?}, {probed:?}");
        }
        assert_eq!(found, 1, "the connection of the provider");
        drop(provider);
    });
}

/// Locks that are due together are renewed together, whatever their leases.
#[test]
fn each_lock_is_renewed_for_its_own_lease_and_in_the_time_of_the_shortest() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy)
            .response_timeout(BOUND)
            .connect_timeout(Duration::from_millis(100));
        let provider = connected(builder).await;
        // More than are sent in one go, and the shortest comes last.
        let leases = (0..201).map(|number| match number {
            200 => Duration::from_secs(4),
            _ => Duration::from_secs(6 + number % 2),
        });
        let mut grants = Vec::new();
        for (number, lease) in leases.clone().enumerate() {
            let name = format!("order{number}");
            let (request, _interest) = AcquireRequest::new(name, lease, false).unwrap();
            grants.push(Arc::new(provider.acquire(&request).await.unwrap()));
        }
        let answers = provider.renew_all(&grants).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        for (number, lease) in leases.enumerate() {
            let left = life(&server.raw, &format!("order{number}")).await;
            let lease = i64::try_from(lease.as_millis()).unwrap();
            assert!(left <= lease && left > lease - 1_000, "{left} of {lease}");
        }
        let shortest = grants.last().unwrap().lease();
        proxy.set(|fault| fault.to_client = Flow::Hold);
        let asked = Instant::now();
        let answers = provider.renew_all(&grants).await;
        assert!(answers.iter().all(Result::is_err), "{answers:?}");
        let waited = asked.elapsed();
        assert!(
            waited < shortest / 4 + Duration::from_millis(400),
            "{waited:?}"
        );
    });
}
