//! Another server takes its place behind the same address. The old one is demoted, as by a sentinel
//! or an operator, and its connections stay open.

use std::time::{Duration, Instant};

use lock_runtime::LockGuard;
use lock_tests::history::Held;
use lock_tests::proxy::Flow;
use lock_tests::{FencedRegister, History, boot_nanos, eventually};
use tokio::task::JoinHandle;

use crate::common::{BOUND, follow, take};
use crate::servers::{LEASE, Servers, with_servers};

fn token(guard: &LockGuard) -> u64 {
    guard.fencing_token().expect("Redis gives tokens").get()
}

/// Watches a guard, and returns for how long it was known to be valid.
fn watch(guard: LockGuard, holder: &'static str) -> JoinHandle<Held> {
    let name = guard.name().as_str().to_owned();
    let token = guard.fencing_token().map(|token| token.get());
    let from = boot_nanos();
    tokio::spawn(async move {
        let mut until = from;
        loop {
            let now = boot_nanos();
            // Read after the clock: what is not lost now was valid then.
            if guard.is_lost() {
                break;
            }
            until = now;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        guard.lost().await;
        Held {
            name,
            holder: holder.to_owned(),
            from,
            until,
            token,
        }
    })
}

#[test]
fn a_lock_that_the_new_server_knows_is_kept_and_handed_on() {
    with_servers(|servers| async move {
        let (guard, waiting) = servers.hold_and_wait().await;
        let new = &servers.new.raw;
        let owner = servers.replicated().await;
        servers
            .fail_over(&[&servers.holders, &servers.waiters])
            .await;
        let switched = Instant::now();
        eventually("a lease is over", LEASE + BOUND, || async {
            assert!(!guard.is_lost(), "although the new server knows it");
            switched.elapsed() > LEASE
        })
        .await;
        assert_eq!(new.get("order").await, owner);
        assert!(!waiting.is_finished(), "it is held");
        let before = guard.fencing_token();
        guard.release().await.unwrap();
        let next = waiting.await.unwrap();
        assert!(next.fencing_token() > before);
        next.release().await.unwrap();
        assert_eq!(new.get("order").await, None);
    });
}

/// Half of the clients find the new server, and the other half the old one.
#[test]
fn a_holder_that_stays_behind_is_lost_before_the_new_server_gives_its_lock_away() {
    with_servers(|servers| async move {
        let (guard, waiting) = servers.hold_and_wait().await;
        let new = &servers.new.raw;
        let owner = servers.replicated().await;
        let holding = watch(guard, "who stayed");
        servers.fail_over(&[&servers.waiters]).await;
        let (switched, at) = (Instant::now(), boot_nanos());
        let next = waiting.await.unwrap();
        let from = boot_nanos();
        let waited = switched.elapsed();
        // What was left of the lease; the rest is the machine's.
        assert!(waited < LEASE + BOUND / 2, "{waited:?}");
        let next_owner = new.get("order").await;
        assert!(next_owner.is_some() && next_owner != owner);
        let token = next.fencing_token().map(|token| token.get());
        next.release().await.unwrap();
        let held = holding.await.unwrap();
        assert!(held.until > at, "it was held after the failover");
        let history = History::default();
        history.record(Held {
            name: held.name.clone(),
            holder: "who moved".to_owned(),
            from,
            until: boot_nanos(),
            token,
        });
        history.record(held);
        history.check();
        assert_eq!(history.changes_of_holder(), 1);
    });
}

/// The failover loses the last writes, so a client that finds the new server first has the lock.
/// The holder learns that with its next renewal. The register that the lock protects refuses its
/// token.
#[test]
fn a_lock_that_the_new_server_never_heard_of_is_a_loss_and_fenced_off() {
    with_servers(|servers| async move {
        servers
            .replication
            .set(|fault| fault.to_client = Flow::Swallow);
        let (guard, waiting) = servers.hold_and_wait().await;
        eventually("the last writes vanish", BOUND, || async {
            servers.replication.swallowed() > 0
        })
        .await;
        assert_eq!(servers.new.raw.get("order").await, None);
        servers
            .fail_over(&[&servers.holders, &servers.waiters])
            .await;
        let switched = Instant::now();
        let told = tokio::spawn({
            let lost = guard.lost();
            async move {
                lost.await;
                switched.elapsed()
            }
        });
        let next = waiting.await.unwrap();
        let waited = switched.elapsed();
        // It looks when the lease would end that it knows of; the rest is the machine's.
        assert!(waited < LEASE + BOUND / 2, "{waited:?}");
        let told = told.await.unwrap();
        // The next renewal is due after a third of the lease at most, the deadline after two.
        assert!(told < LEASE * 5 / 8, "told after {told:?}");
        let register = FencedRegister::default();
        assert!(register.write("order", token(&next)));
        assert!(!register.write("order", token(&guard)), "the stale one");
        drop(guard);
        assert!(!next.is_lost());
        next.release().await.unwrap();
    });
}

/// The new server's counter is behind, and a client that was connected to it all the time does not
/// raise it.
#[test]
fn tokens_grow_over_a_failover_that_some_see_late() {
    with_servers(|servers| async move {
        servers.new.raw.ask::<String>("REPLICAOF NO ONE").await;
        let early = servers.new.provider().await;
        take(&early, "other").await.release().await.unwrap();
        let late = servers.old.provider().await;
        let guard = take(&late, "order").await;
        let last = token(&guard);
        guard.release().await.unwrap();
        servers.fail_over(&[]).await;
        let next = token(&take(&early, "order").await);
        assert!(next > last, "{next} after {last}");
    });
}

/// The old server takes over again, without the last increments, and its connections stay open.
#[test]
fn tokens_grow_over_a_failover_and_back() {
    with_servers(|servers| async move {
        let Servers { old, new, .. } = &servers;
        let provider = old.provider().await;
        take(&provider, "order").await.release().await.unwrap();
        assert_eq!(old.raw.ask::<u64>("WAIT 1 30000").await, 1);
        servers
            .replication
            .set(|fault| fault.to_client = Flow::Swallow);
        let mut last = 0;
        for _ in 0..5 {
            let guard = take(&provider, "order").await;
            last = token(&guard);
            guard.release().await.unwrap();
        }
        let _back = {
            new.raw.ask::<String>("REPLICAOF NO ONE").await;
            follow(new, old).await
        };
        old.raw.ask::<String>("REPLICAOF NO ONE").await;
        let next = token(&take(&provider, "order").await);
        assert!(next > last, "{next} after {last}");
    });
}
