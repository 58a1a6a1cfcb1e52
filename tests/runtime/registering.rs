//! Providers that are registered late, and what the log says of them.

use std::time::Duration;

use lock_runtime::testing::TestProvider;
use lock_runtime::{DistributedLock, LockErrorKind};
use lock_tests::poll_once;
use tracing::Level;

use crate::log::Log;
use crate::own_process::in_own_process;
use crate::run;

#[test]
fn a_provider_does_not_come_between_a_lock_and_its_holder() {
    in_own_process(
        "registering::a_provider_does_not_come_between_a_lock_and_its_holder",
        &[],
        || {
            run(async {
                let lock = DistributedLock::new("early");
                let held = lock.acquire().await.expect("the lock is free");
                let mut waiting = Box::pin(lock.acquire());
                assert!(poll_once(waiting.as_mut()).await.is_none());
                let provider = TestProvider::new();
                let refused = lock_runtime::register(provider.clone()).unwrap_err();
                assert!(
                    refused.to_string().starts_with("1 locks are held"),
                    "{refused}"
                );
                // Nothing has changed, for holders, waiters and newcomers.
                assert!(lock.try_acquire().await.expect("no error").is_none());
                drop(held);
                drop(waiting.await.expect("its turn comes"));
                drop(lock.acquire().await.expect("the lock is free"));

                lock_runtime::register(provider.clone()).expect("nothing is held");
                let guard = lock.acquire().await.expect("the lock is free");
                assert!(provider.is_held("early"));
                guard.release().await.expect("it was held");
                let again = lock_runtime::register(TestProvider::new());
                assert!(
                    again
                        .unwrap_err()
                        .to_string()
                        .contains("registered already")
                );
            });
        },
    );
}

#[test]
fn a_lock_that_is_kept_counts_as_held() {
    in_own_process(
        "registering::a_lock_that_is_kept_counts_as_held",
        &[],
        || {
            run(async {
                let lock = DistributedLock::new("kept").min_hold(Duration::from_millis(200));
                drop(lock.acquire().await.expect("the lock is free"));
                assert!(lock_runtime::register(TestProvider::new()).is_err());
                drop(lock.acquire().await.expect("its turn comes"));
            });
        },
    );
}

#[test]
fn racing_threads_never_hold_one_name_on_both() {
    in_own_process(
        "registering::racing_threads_never_hold_one_name_on_both",
        &[],
        || {
            use std::sync::atomic::{AtomicUsize, Ordering};
            static HELD: AtomicUsize = AtomicUsize::new(0);
            let provider = TestProvider::new();
            let work = || {
                crate::dropped_at_every_poll::block_on(async {
                    for _ in 0..2_000 {
                        // As by the attribute: looked up at each call.
                        match DistributedLock::new("raced").acquire().await {
                            Ok(guard) => {
                                assert_eq!(HELD.fetch_add(1, Ordering::SeqCst), 0);
                                HELD.fetch_sub(1, Ordering::SeqCst);
                                drop(guard);
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
                            }
                        }
                    }
                });
            };
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(work);
                }
                while lock_runtime::register(provider.clone()).is_err() {}
            });
        },
    );
}

#[test]
fn what_locks_are_on_is_said_once() {
    in_own_process("registering::what_locks_are_on_is_said_once", &[], || {
        let log = Log::install(Level::INFO);
        lock_runtime::register(TestProvider::new()).expect("it is the first");
        lock_runtime::register_named("other", TestProvider::new()).expect("it is the first");
        assert_eq!(log.lines_with("locks on test"), 2);
        assert!(log.line_with("locks on test").contains("other"));
    });
}

#[test]
fn locks_of_the_process_alone_are_said_louder() {
    in_own_process(
        "registering::locks_of_the_process_alone_are_said_louder",
        &[],
        || {
            let log = Log::install(Level::INFO);
            run(async move {
                let provider = lock_runtime::connect("memory:")
                    .await
                    .expect("it needs nothing");
                assert_eq!(
                    log.lines_with("WARN"),
                    1,
                    "already: it may be used unregistered"
                );
                lock_runtime::register(provider).expect("it is the first");
                assert!(log.line_with("WARN").contains("this process alone"));
            });
        },
    );
}
