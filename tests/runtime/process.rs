//! The registry, the fallback and shutdown.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    DistributedLock, InProcessProvider, LockError, LockErrorKind, connect, distributed_lock,
    forbid_in_process_fallback, register, register_named, shutdown,
};
use lock_tests::poll_once;
use tracing::Level;

use crate::dropped_at_every_poll::block_on;
use crate::log::Log;
use crate::own_process::in_own_process;
use crate::{lock_on, run, shared};

#[distributed_lock(name = "annotated:{number}")]
async fn on_default(number: u32) -> Result<u32, LockError> {
    Ok(number)
}

#[distributed_lock(name = "annotated", provider = "billing")]
async fn on_named() -> Result<(), LockError> {
    Ok(())
}

#[test]
fn the_fallback_warns_once_and_can_be_replaced() {
    in_own_process(
        "process::the_fallback_warns_once_and_can_be_replaced",
        &[],
        || {
            let log = Log::install(Level::WARN);
            for number in 0..3 {
                assert_eq!(
                    block_on(on_default(number)).expect("held in this process"),
                    number
                );
            }
            assert_eq!(log.lines_with("no lock provider is registered"), 1);

            let kept = DistributedLock::new("kept");
            drop(block_on(kept.acquire()).expect("held in this process"));
            let provider = TestProvider::new();
            register(provider.clone()).expect("there is none yet");
            assert_eq!(log.lines_with("registered after locks had been held"), 1);
            block_on(on_default(1)).expect("held by the provider");
            assert_eq!(provider.calls(Operation::Acquire), 1);
            let guard = block_on(kept.acquire()).expect("held by the provider");
            assert!(
                provider.is_held("kept"),
                "a lock made before follows the registry"
            );
            drop(guard);

            let error = register(InProcessProvider::new()).expect_err("there is one");
            assert!(
                error.to_string().contains("registered already (`test`)"),
                "{error}"
            );
        },
    );
}

#[test]
fn the_fallback_warns_loudly_where_replicas_run() {
    let environment = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    in_own_process(
        "process::the_fallback_warns_loudly_where_replicas_run",
        &environment,
        || {
            let log = Log::install(Level::WARN);
            block_on(on_default(1)).expect("held in this process");
            assert_eq!(log.lines_with("ONE OF SEVERAL REPLICAS"), 1);
        },
    );
}

#[test]
fn a_forbidden_fallback_is_an_error() {
    in_own_process("process::a_forbidden_fallback_is_an_error", &[], || {
        forbid_in_process_fallback();
        let error = block_on(on_default(1)).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::NoProvider);
        assert!(
            error.to_string().contains("lock_runtime::register"),
            "{error}"
        );
        let error = block_on(DistributedLock::new("any").try_acquire()).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::NoProvider);
        register(InProcessProvider::new()).expect("there is none yet");
        block_on(on_default(1)).expect("there is a provider");
    });
}

#[test]
fn named_providers_are_found_by_their_name() {
    in_own_process(
        "process::named_providers_are_found_by_their_name",
        &[],
        || {
            register_named("reports", TestProvider::new()).expect("the name is free");
            let error = block_on(on_named()).unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::NoProvider);
            assert!(
                error
                    .to_string()
                    .contains("`billing`; registered: `reports`"),
                "{error}"
            );
            let provider = TestProvider::new();
            register_named("billing", Arc::new(provider.clone())).expect("the name is free");
            block_on(on_named()).expect("the lock is free");
            assert_eq!(provider.calls(Operation::Acquire), 1);
            assert!(register_named("billing", TestProvider::new()).is_err());
            assert!(register_named("", TestProvider::new()).is_err());
        },
    );
}

#[test]
fn shutdown_releases_what_is_held_and_fails_who_waits() {
    in_own_process(
        "process::shutdown_releases_what_is_held_and_fails_who_waits",
        &[],
        || {
            run(async {
                let provider = TestProvider::new();
                provider.delay(Operation::Release, Duration::from_millis(50));
                let guard = lock_on(&provider, "held")
                    .acquire()
                    .await
                    .expect("the lock is free");
                let waiter = lock_on(&provider, "held");
                let mut waiter = pin!(waiter.acquire());
                assert!(
                    poll_once(waiter.as_mut()).await.is_none(),
                    "the lock is held"
                );
                let other = lock_on(&provider, "dropped")
                    .acquire()
                    .await
                    .expect("the lock is free");
                drop(other);
                tokio::task::yield_now().await;
                shutdown().await;
                assert_eq!(provider.held(), 0, "it waits for the releases");
                assert!(guard.is_lost());
                guard.lost().await;
                assert_eq!(
                    guard.release().await.unwrap_err().kind(),
                    LockErrorKind::Lost
                );
                let error = waiter.await.unwrap_err();
                assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
                let renewals = provider.calls(Operation::Renew);
                let again = lock_on(&provider, "held")
                    .try_acquire()
                    .await
                    .expect("it answers");
                assert!(
                    again.is_some(),
                    "locks asked for later are acquired as ever"
                );
                assert_eq!(provider.calls(Operation::Renew), renewals);
            });
        },
    );
}

#[test]
fn shutdown_with_nothing_held_is_done_at_once() {
    in_own_process(
        "process::shutdown_with_nothing_held_is_done_at_once",
        &[],
        || {
            block_on(shutdown());
            let kept = block_on(DistributedLock::new("in-process").acquire()).expect("it is free");
            block_on(shutdown());
            assert!(!kept.is_lost(), "locks of the process alone end with it");
        },
    );
}

#[test]
fn urls_connect_or_say_what_was_expected() {
    run(async {
        let memory = connect("memory:").await.expect("the scheme is compiled in");
        let lock = DistributedLock::on(Arc::clone(&memory), "url");
        let guard = lock.acquire().await.expect("the lock is free");
        let separate = DistributedLock::on(connect("memory:").await.expect("as above"), "url");
        assert!(
            separate.try_acquire().await.expect("no error").is_some(),
            "another memory"
        );
        drop(guard);
        connect("memory:?key_prefix=MyApp1:")
            .await
            .expect("every provider knows it");
        for (url, expected) in [
            ("", "begins with one of `memory:`"),
            ("memory", "begins with one of `memory:`"),
            ("memory:x", "nothing behind it"),
            ("memory:?lease=3s", "nothing behind it"),
            ("carrier-pigeon://coop", "compiled in: `memory:`"),
        ] {
            let error = connect(url).await.err().expect(url);
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(expected), "{url}: {error}");
        }
        let error = connect("secret-user:secret-password@host")
            .await
            .err()
            .expect("no scheme");
        assert!(
            !format!("{error} {error:?}").contains("secret"),
            "{error:?}"
        );
    });
}

#[test]
fn leases_and_names_are_checked() {
    run(async {
        let locks = shared(TestProvider::new());
        let on = |name: &str| DistributedLock::on(Arc::clone(&locks), name);
        let kind = |error: LockError| error.kind();
        for lease in [Duration::ZERO, Duration::from_millis(99), Duration::MAX] {
            let result = on("leases").lease(lease).acquire().await;
            assert_eq!(
                result.map_err(kind).err(),
                Some(LockErrorKind::InvalidConfig)
            );
        }
        for name in ["", "a\0b", &"x".repeat(1_025)] {
            let result = on(name).acquire().await;
            assert_eq!(result.map_err(kind).err(), Some(LockErrorKind::InvalidName));
        }
        drop(
            on(&"x".repeat(1_024))
                .acquire()
                .await
                .expect("a name may be that long"),
        );
    });
}

#[test]
fn shutdown_waits_for_bodies_to_be_dropped() {
    in_own_process(
        "process::shutdown_waits_for_bodies_to_be_dropped",
        &[],
        || {
            run(async {
                let provider = TestProvider::new();
                let guard = lock_on(&provider, "busy")
                    .acquire()
                    .await
                    .expect("the lock is free");
                let busy = std::thread::spawn(move || {
                    while !guard.is_lost() {
                        std::thread::yield_now();
                    }
                    // What a body does before it notices, and while it is dropped.
                    std::thread::sleep(Duration::from_millis(300));
                    assert!(!guard.name().as_str().is_empty());
                    std::time::Instant::now()
                });
                shutdown().await;
                let free = std::time::Instant::now();
                assert!(
                    free >= busy.join().expect("no panic"),
                    "given back under a body that runs"
                );
                assert_eq!(provider.held(), 0);
            });
        },
    );
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    in_own_process("process::shutdown_does_not_wait_for_ever", &[], || {
        run(async {
            let provider = TestProvider::new();
            let guard = lock_on(&provider, "kept")
                .acquire()
                .await
                .expect("the lock is free");
            shutdown().await;
            assert_eq!(
                provider.held(),
                0,
                "a guard that nobody drops costs a second"
            );
            drop(guard);
        });
    });
}
