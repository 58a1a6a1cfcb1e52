//! Readers that become writers.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::postgres::advisory_key;
use lock_runtime::{Grant, LockErrorKind, LockMode, LockProvider, PostgresProvider};
use lock_tests::eventually;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{
    BOUND, assert_refused, connected, enter, entered, entering, request, try_enter, with_server,
};

const UPGRADEABLE: LockMode = LockMode::Upgradeable;

async fn try_upgrade(provider: &PostgresProvider, grant: &Grant) -> Option<Grant> {
    let (request, _interest) = request("order", LockMode::Write, false);
    match provider.upgrade(grant, &request).await {
        Ok(grant) => Some(grant),
        Err(error) => {
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
            None
        }
    }
}

#[test]
fn one_at_a_time_may_upgrade_beside_readers() {
    with_server(|server| async move {
        let (here, there) = (server.provider().await, server.provider().await);
        let first = try_enter(&here, "order", UPGRADEABLE).await.unwrap();
        assert_eq!(first.mode(), UPGRADEABLE);
        let reads = [
            try_enter(&here, "order", LockMode::Read).await.unwrap(),
            try_enter(&there, "order", LockMode::Read).await.unwrap(),
        ];
        for provider in [&here, &there] {
            assert_refused(provider, "order", UPGRADEABLE).await;
            assert_refused(provider, "order", LockMode::Write).await;
        }
        let (second, _interest) = entering(&there, "order", UPGRADEABLE);
        server.until_waiting(1).await;
        assert!(try_upgrade(&here, &first).await.is_none(), "others read");
        here.release(&first).await.unwrap();
        let second = entered(second).await;
        assert!(second.token() > first.token());
        here.release(&reads[0]).await.unwrap();
        there.release(&reads[1]).await.unwrap();
        let write = try_upgrade(&there, &second).await.expect("nobody reads");
        assert_eq!(write.mode(), LockMode::Write);
        assert!(write.token() > second.token());
        assert_refused(&here, "order", LockMode::Read).await;
        there.release(&write).await.unwrap();
        server.until_free(BOUND).await;
    });
}

/// It goes before a writer that has waited for longer, and neither waits for ever.
#[test]
fn an_upgrade_goes_before_those_who_wait() {
    with_server(|server| async move {
        let (here, there) = (server.provider().await, server.provider().await);
        let upgradeable = enter(&here, "order", UPGRADEABLE).await;
        let read = enter(&there, "order", LockMode::Read).await;
        let (writing, _interest) = entering(&there, "order", LockMode::Write);
        server.until_waiting(1).await;
        let (wanted, _own) = request("order", LockMode::Write, true);
        let upgrading = tokio::spawn({
            let here = here.clone();
            async move {
                let upgraded = here.upgrade(&upgradeable, &wanted).await;
                (upgraded.unwrap(), upgradeable)
            }
        });
        server.until_waiting(2).await;
        there.release(&read).await.unwrap();
        let (write, _over) = tokio::time::timeout(BOUND, upgrading)
            .await
            .unwrap()
            .unwrap();
        assert!(!writing.is_finished());
        here.release(&write).await.unwrap();
        let write = entered(writing).await;
        there.release(&write).await.unwrap();
        server.until_free(BOUND).await;
    });
}

/// A reader that waits to be a writer cannot answer, and is renewed all the same. Its wait ends
/// again and again for the sake of its snapshot.
#[test]
fn a_reader_is_renewed_while_its_upgrade_waits() {
    with_server(|server| async move {
        let builder = || server.builder().lease(Duration::from_secs(2));
        let here = connected(builder().snapshot_age(Duration::from_secs(1))).await;
        let there = connected(builder()).await;
        let (wanted, _interest) =
            lock_runtime::AcquireRequest::new("order", Duration::from_secs(2), true).unwrap();
        let upgradeable = here.acquire(&wanted.with_mode(UPGRADEABLE)).await.unwrap();
        let read = enter(&there, "order", LockMode::Read).await;
        let (wanted, interest) = request("order", LockMode::Write, true);
        let upgrading = here.upgrade(&upgradeable, &wanted);
        let renewing = async {
            server.until_waiting(1).await;
            let mut last = upgradeable.valid_from();
            for _ in 0..10 {
                let renewed = here.renew(&upgradeable).await.expect("it is held");
                assert!(renewed > last);
                last = renewed;
                there.renew(&read).await.unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            interest.abandon();
        };
        let (refused, ()) = tokio::join!(upgrading, renewing);
        assert_eq!(
            refused.map(drop).unwrap_err().kind(),
            LockErrorKind::Contended
        );
        // It reads as before, and can try again.
        here.renew(&upgradeable).await.unwrap();
        assert_refused(&there, "order", UPGRADEABLE).await;
        there.release(&read).await.unwrap();
        let write = try_upgrade(&here, &upgradeable)
            .await
            .expect("nobody reads");
        here.release(&write).await.unwrap();
        server.until_free(BOUND).await;
    });
}

#[test]
fn the_end_of_the_session_is_told_to_whoever_upgrades() {
    with_server(|server| async move {
        let (here, there) = (server.provider().await, server.provider().await);
        let upgradeable = enter(&here, "order", UPGRADEABLE).await;
        let read = enter(&there, "order", LockMode::Read).await;
        let (wanted, _interest) = request("order", LockMode::Write, true);
        let upgrading = here.upgrade(&upgradeable, &wanted);
        let ending = async {
            server.until_waiting(1).await;
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_locks \
                       WHERE locktype = 'advisory' AND NOT granted";
            server.raw.batch_execute(sql).await.unwrap();
        };
        let (refused, ()) = tokio::join!(upgrading, ending);
        let error = refused.map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        let lost = here.renew(&upgradeable).await.unwrap_err();
        assert_eq!(lost.kind(), LockErrorKind::Lost, "{lost}");
        assert_eq!(
            here.release(&upgradeable).await.unwrap_err().kind(),
            LockErrorKind::Lost
        );
        there.release(&read).await.unwrap();
        server.until_free(BOUND).await;
    });
}

/// Those who wait for the right give up, before and while they have it.
#[test]
fn who_gives_up_leaves_nothing() {
    with_server(|server| async move {
        let (here, there) = (server.provider().await, server.provider().await);
        for (blocks, waiting) in [(UPGRADEABLE, 1), (LockMode::Write, 1)] {
            let blocking = enter(&here, "order", blocks).await;
            let (entering, interest) = entering(&there, "order", UPGRADEABLE);
            server.until_waiting(waiting).await;
            interest.abandon();
            assert!(entering.await.unwrap().is_err());
            here.release(&blocking).await.unwrap();
            server.until_free(BOUND).await;
        }
        eventually("it is free", BOUND, || async {
            let grant = try_enter(&there, "order", UPGRADEABLE).await.unwrap();
            there.release(&grant).await.is_ok()
        })
        .await;
        server.until_free(BOUND).await;
    });
}

/// What this process has given up, and the server still has, is no other holder.
#[test]
fn a_right_that_was_given_up_is_no_holder() {
    with_server(|server| async move {
        let builder = server
            .builder()
            .response_timeout(Duration::from_millis(500));
        let provider = connected(builder).await;
        let grant = enter(&provider, "order", UPGRADEABLE).await;
        let right = format!(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
             AND (classid::bigint << 32) | objid::bigint = {}",
            advisory_key("order\0upgrade")
        );
        let row = server.raw.query_one(&right, &[]).await.unwrap();
        let stopped = Pid::from_raw(row.get(0)).unwrap();
        kill_process(stopped, Signal::STOP).unwrap();
        assert!(provider.release(&grant).await.is_err(), "nobody answers");
        let late = try_enter(&provider, "order", UPGRADEABLE).await.map(drop);
        let trying = tokio::spawn({
            let provider = Arc::clone(&provider);
            async move { try_enter(&provider, "order", UPGRADEABLE).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill_process(stopped, Signal::CONT).unwrap();
        let late = late.unwrap_err();
        assert_eq!(late.kind(), LockErrorKind::ProviderUnavailable, "{late}");
        let free = trying.await.unwrap().expect("nobody has it");
        provider.release(&free).await.unwrap();
    });
}

/// A reader that this process has given up is in the way, and is nobody else.
#[test]
fn a_reader_that_was_given_up_is_no_other_reader() {
    with_server(|server| async move {
        let builder = server
            .builder()
            .response_timeout(Duration::from_millis(500));
        let provider = connected(builder).await;
        let grant = enter(&provider, "order", UPGRADEABLE).await;
        let read = enter(&provider, "order", LockMode::Read).await;
        let reader = format!(
            "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND pid NOT IN \
             (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 \
             AND (classid::bigint << 32) | objid::bigint = {})",
            advisory_key("order\0upgrade")
        );
        let row = server.raw.query_one(&reader, &[]).await.unwrap();
        let stopped = Pid::from_raw(row.get(0)).unwrap();
        kill_process(stopped, Signal::STOP).unwrap();
        assert!(provider.release(&read).await.is_err(), "nobody answers");
        let mut seen = Vec::new();
        for waits in [false, true] {
            let (request, interest) = request("order", LockMode::Write, waits);
            let upgrading = provider.upgrade(&grant, &request);
            let late = tokio::time::timeout(Duration::from_secs(3), upgrading).await;
            seen.push((late.map(|it| it.map(drop)), interest.is_contended()));
        }
        kill_process(stopped, Signal::CONT).unwrap();
        assert!(seen.iter().all(|(_, contended)| !contended), "{seen:?}");
        let error = seen.remove(0).0.expect("in time").unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        let (request, _interest) = request("order", LockMode::Write, true);
        let alone = provider.upgrade(&grant, &request).await.expect("alone");
        provider.release(&alone).await.unwrap();
    });
}
