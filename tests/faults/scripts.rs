//! Scripts that the server has forgotten, and leases of every length.

use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::eventually;

use crate::common::{BOUND, Raw, connected, lock, take, with_server};
use crate::server_stats::{calls, forgotten_scripts, life};

/// Makes the server forget all scripts, and returns how often one was missed so far.
async fn flush(raw: &Raw) -> u64 {
    raw.ask::<String>("SCRIPT FLUSH").await;
    forgotten_scripts(raw).await
}

#[test]
fn each_script_may_be_forgotten() {
    with_server(|server| async move {
        let raw = &server.raw;
        let first = connected(server.builder().lease(Duration::from_secs(3))).await;
        let second = server.provider_with_long_lease().await;

        let missed = flush(raw).await;
        let guard = take(&first, "order").await;
        assert_eq!(forgotten_scripts(raw).await, missed + 1, "to acquire");

        let missed = flush(raw).await;
        let renewed = calls(raw, "pexpire").await;
        eventually("it is renewed", BOUND, || async {
            calls(raw, "pexpire").await > renewed
        })
        .await;
        assert_eq!(forgotten_scripts(raw).await, missed + 1, "to renew");

        let missed = flush(raw).await;
        let waiting = {
            let second = second.clone();
            tokio::spawn(async move { take(&second, "order").await })
        };
        raw.until_waiting("order", 1).await;
        assert!(forgotten_scripts(raw).await > missed, "to queue");

        let missed = flush(raw).await;
        guard.release().await.unwrap();
        let guard = waiting.await.unwrap();
        assert!(forgotten_scripts(raw).await > missed, "to hand over");

        flush(raw).await;
        let error = lock(&first, "order")
            .acquire_for(Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut);
        assert_eq!(raw.waiting("order").await, 0, "it left the queue");

        // Two tasks, so that the lock is passed on in their process and the queue served between.
        let others: Vec<_> = (0..40)
            .map(|_| {
                let second = second.clone();
                tokio::spawn(async move { take(&second, "order").await.release().await })
            })
            .collect();
        let waiting = {
            let first = first.clone();
            tokio::spawn(async move { take(&first, "order").await.release().await })
        };
        raw.until_waiting("order", 1).await;
        let missed = flush(raw).await;
        guard.release().await.unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
        waiting.await.unwrap().unwrap();
        assert!(forgotten_scripts(raw).await > missed, "to pass on");

        // A connection that is new needs one more.
        let missed = flush(raw).await;
        let _third = server.provider().await;
        assert_eq!(forgotten_scripts(raw).await, missed + 1, "to raise tokens");
    });
}

#[test]
fn leases_of_any_length_are_kept_or_refused() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let slow = "CONFIG SET slowlog-log-slower-than 0";
        server.raw.ask::<String>(slow).await;
        for (lease, sent) in [
            (Duration::from_millis(100), 100),
            // Never shorter at the server than it counts here.
            (Duration::from_nanos(100_000_001), 101),
            (Duration::from_micros(250_500), 251),
            (Duration::from_secs(24 * 60 * 60), 86_400_000),
        ] {
            server.raw.ask::<String>("SLOWLOG RESET").await;
            let order = lock(&provider, "order").lease(lease);
            let guard = order.acquire_for(BOUND).await.unwrap();
            let asked: Vec<redis::Value> = server.raw.ask("SLOWLOG GET 100").await;
            let expected = format!("'\"{sent}\"'");
            assert!(format!("{asked:?}").contains(&expected), "{asked:?}");
            assert!(life(&server.raw, "order").await <= sent);
            // The short ones may lapse on a busy machine.
            let _ = guard.release().await;
        }
        let before = calls(&server.raw, "set").await;
        for lease in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_nanos(99_999_999),
            Duration::from_nanos(24 * 60 * 60 * 1_000_000_000 + 1),
            Duration::MAX,
        ] {
            let order = lock(&provider, "refused").lease(lease);
            let error = order.acquire_for(BOUND).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{lease:?}");
            let builder = server.builder().lease(lease);
            let error = builder.connect().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{lease:?}");
        }
        assert_eq!(server.raw.get("refused").await, None);
        // Connecting would have set the counter.
        assert_eq!(calls(&server.raw, "set").await, before);
    });
}
