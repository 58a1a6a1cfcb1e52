//! Requests without an answer. A session that works soon settles what they did, and what is left of
//! this process is nobody else's lock.

use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;
use lock_tests::pgbouncer::PgBouncer;
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, eventually};

use crate::common::{BOUND, connected, lock, proxied, take, through, with_server};

const LEASE: Duration = Duration::from_secs(60);
const RESPONSE: Duration = Duration::from_secs(2);

/// The lock is free soon, whether the request never arrived, or only its answer was lost.
#[test]
fn a_lock_whose_request_was_not_answered_is_free_soon() {
    with_server(|server| async move {
        for arrives in [false, true] {
            let proxy = FaultProxy::start(server.process.port()).await;
            let builder = through(&proxy).lease(LEASE).response_timeout(RESPONSE);
            let provider = connected(builder).await;
            take(&provider, "other").await.release().await.unwrap();
            match arrives {
                true => proxy.set(|fault| fault.to_client = Flow::Swallow),
                false => proxy.strand(),
            }
            let begun = Instant::now();
            let error = lock(&provider, "order").try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            proxy.heal();
            let free = async {
                loop {
                    match lock(&provider, "order").try_acquire().await {
                        Ok(Some(guard)) => return guard,
                        Ok(None) => panic!("nobody else has it"),
                        Err(error) => {
                            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                }
            };
            let guard = tokio::time::timeout(BOUND, free)
                .await
                .expect("it is free soon");
            assert!(
                begun.elapsed() < 2 * RESPONSE,
                "{arrives}: {:?}",
                begun.elapsed()
            );
            guard.release().await.unwrap();
        }
    });
}

/// A session that holds other locks is not ended for one request without an answer.
#[test]
fn other_locks_of_a_deaf_session_are_left_alone() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let builder = through(&proxy).lease(LEASE).response_timeout(RESPONSE);
        let provider = connected(builder).await;
        let kept = take(&provider, "kept").await;
        proxy.set(|fault| fault.to_server = Flow::Hold);
        let error = lock(&provider, "order").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        // What was held back comes now, and what takes it back after it.
        proxy.heal();
        take(&provider, "order").await.release().await.unwrap();
        assert!(!kept.is_lost());
        kept.release().await.unwrap();
        server.until_free(BOUND).await;
    });
}

/// Sessions break in a row while other tasks of this process try; none is told of another holder.
#[test]
fn what_a_process_left_behind_is_no_other_holder() {
    with_server(|server| async move {
        let (proxy, provider) = proxied(&server.process, LEASE).await;
        for round in 0..20 {
            let name = format!("order:{}", round % 2);
            let guard = take(&provider, &name).await;
            let stranded = round % 4 == 3;
            match stranded {
                true => proxy.strand(),
                false => proxy.reset(),
            }
            drop(guard);
            let trying = Instant::now();
            loop {
                match lock(&provider, &name).try_acquire().await {
                    Ok(Some(guard)) => break guard.release().await.unwrap(),
                    Ok(None) => panic!("round {round}: nobody else has it"),
                    Err(error) => {
                        let kind = error.kind();
                        assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{error}");
                    }
                }
                assert!(trying.elapsed() < BOUND, "round {round}: it is free soon");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

/// A pooler goes over to another mode behind the same name.
#[test]
fn a_pooler_that_begins_to_exchange_sessions_is_noticed() {
    with_server(|server| async move {
        let Some(sessions) = PgBouncer::start(&server.process, "session", "") else {
            return;
        };
        let in_turn = "default_pool_size = 1";
        let Some(transactions) = PgBouncer::start(&server.process, "transaction", in_turn) else {
            return;
        };
        let name = FaultProxy::start(sessions.port()).await;
        let lease = Duration::from_secs(2);
        let first = connected(through(&name).lease(lease)).await;
        let second = connected(through(&name).lease(lease)).await;
        name.lead_to(transactions.port());
        name.reset();
        // One of them may have the pooled session alone, or the other.
        let mut held = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < 2 * lease {
            for provider in [&first, &second] {
                if let Ok(Some(guard)) = lock(provider, "order").try_acquire().await {
                    held.push(guard);
                }
            }
            let valid = held.iter().filter(|guard| !guard.is_lost()).count();
            assert!(valid <= 1, "{valid} hold it");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let error = lock(&second, "order").try_acquire().await;
        let error = error
            .err()
            .or(lock(&first, "order").try_acquire().await.err());
        let error = error.expect("a pooled session is refused");
        assert_eq!(error.kind(), LockErrorKind::Unsupported, "{error}");
        drop(held);
        name.lead_to(sessions.port());
        name.reset();
        eventually(
            "the other mode works again",
            Duration::from_secs(30),
            || async { matches!(lock(&first, "another").try_acquire().await, Ok(Some(_))) },
        )
        .await;
    });
}

/// The connection is half-open since before its session was set up. The server forgets it all the
/// same.
#[test]
fn a_session_that_was_never_set_up_is_forgotten() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let lease = Duration::from_secs(2);
        let connecting = through(&proxy).lease(lease).connect();
        let connecting = tokio::spawn(connecting);
        // The first answer is the server's greeting; then nothing passes any more.
        eventually("it is being opened", BOUND, || async {
            server.sessions().await > 0
        })
        .await;
        proxy.set(|fault| fault.hides_close = true);
        proxy.strand();
        assert!(connecting.await.unwrap().is_err());
        eventually("the server has forgotten it", 2 * BOUND, || async {
            server.sessions().await == 0
        })
        .await;
    });
}

/// The process gets none of the pool's places, or only one.
#[test]
fn a_pool_that_is_full_is_named() {
    with_server(|server| async move {
        let one = "default_pool_size = 1";
        let Some(pooler) = PgBouncer::start(&server.process, "session", one) else {
            return;
        };
        let connecting = lock_runtime::PostgresProvider::builder(pooler.url());
        let connecting = connecting.connect_timeout(RESPONSE).connect();
        let error = connecting.await.expect_err("a process needs two places");
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(
            error.to_string().contains("room for two sessions"),
            "{error}"
        );
    });
}
