//! A child that was made by `fork` has none of the threads of its parent.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fork::Fork;
use lock_runtime::testing::TestProvider;
use lock_runtime::{DistributedLock, InProcessProvider, LockErrorKind};

use crate::dropped_at_every_poll::block_on;
use crate::groups::Grouping;
use crate::own_process::in_own_process;
use crate::{lock_on, shared};

/// Returns what the child found, as the code with which it ends.
fn in_the_child(lock: &DistributedLock, own: &DistributedLock) -> i32 {
    let start = Instant::now();
    let bounded = block_on(lock.acquire_for(Duration::from_millis(100)));
    let endless = block_on(lock.acquire());
    let tried = block_on(lock.try_acquire());
    for result in [bounded.map(drop), endless.map(drop), tried.map(drop)] {
        let Err(error) = result else { return 1 };
        if error.kind() != LockErrorKind::ProviderUnavailable {
            return 2;
        }
        if !error.to_string().contains("fork") {
            return 3;
        }
    }
    if start.elapsed() > Duration::from_secs(1) {
        return 4;
    }
    // Locks that need no thread go on.
    if block_on(own.acquire()).is_err() {
        return 5;
    }
    0
}

#[test]
fn a_child_of_fork_is_told() {
    in_own_process("forked::a_child_of_fork_is_told", &[], || {
        let provider = TestProvider::new();
        let lock = lock_on(&provider, "before");
        let own = DistributedLock::on(shared(InProcessProvider::new()), "own");
        // The parent's first lock starts the thread.
        let held = block_on(lock.acquire()).expect("the lock is free");
        let other = lock_on(&provider, "after");
        match fork::fork().expect("it can be forked") {
            Fork::Child => {
                // The parent's guard is a copy, and its end here is none.
                drop(held);
                let code = in_the_child(&other, &own);
                // No destructors of the parent's.
                std::process::exit(10 + code);
            }
            Fork::Parent(child) => {
                let status = fork::waitpid(child).expect("it ends");
                let code = (status >> 8) & 0xff;
                assert_eq!(code, 10, "status {status}");
            }
        }
        assert!(provider.is_held("before"), "the parent holds it still");
        assert!(!held.is_lost());
        drop(held);
        drop(block_on(other.acquire()).expect("it works on"));
    });
}

/// Whoever asks too soon after the fork must not take the threads for there.
#[test]
fn a_child_that_asks_at_once_is_told() {
    in_own_process("forked::a_child_that_asks_at_once_is_told", &[], || {
        let single = shared(TestProvider::new());
        let in_groups = shared(Grouping::of_size_answering(64));
        for provider in [single, in_groups] {
            let lock = DistributedLock::on(Arc::clone(&provider), "before");
            for number in 0..20 {
                let other = DistributedLock::on(Arc::clone(&provider), format!("soon:{number}"));
                drop(block_on(lock.acquire()).expect("the lock is free"));
                match fork::fork().expect("it can be forked") {
                    Fork::Child => {
                        // One that hangs fails, too.
                        thread::spawn(|| {
                            thread::sleep(Duration::from_secs(5));
                            std::process::exit(12);
                        });
                        let told = block_on(other.acquire()).is_err();
                        std::process::exit(if told { 10 } else { 11 });
                    }
                    Fork::Parent(child) => {
                        let status = fork::waitpid(child).expect("it ends");
                        let code = (status >> 8) & 0xff;
                        assert_eq!(code, 10, "status {status}");
                    }
                }
            }
        }
    });
}
