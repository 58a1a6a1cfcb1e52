//! Semaphores: never more permits than there are, and in the order of asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{DistributedSemaphore, InProcessProvider, LockErrorKind, LockProvider};
use lock_tests::{poll_once, unique};
use tokio::sync::mpsc;

use crate::{BOUND, nothing_held, run, shared};

fn permits_on(provider: &TestProvider, name: &str, permits: u32) -> DistributedSemaphore {
    DistributedSemaphore::on(shared(provider.clone()), name, permits)
}

fn on_both<F: Future<Output = ()> + Send + 'static>(
    test: impl Fn(Arc<dyn LockProvider>) -> F + Send + 'static,
) {
    run(async move {
        let provider = TestProvider::new();
        test(shared(provider.clone())).await;
        nothing_held(&provider).await;
        test(shared(InProcessProvider::new())).await;
    });
}

#[test]
fn there_are_as_many_permits_as_there_are() {
    on_both(|provider| async move {
        let permits = DistributedSemaphore::on(provider, unique(), 3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(permits.acquire().await.unwrap());
        }
        assert!(permits.try_acquire().await.unwrap().is_none());
        drop(held.pop());
        let again = permits.try_acquire().await.unwrap();
        assert!(again.is_some(), "one was given back");
        assert!(permits.try_acquire().await.unwrap().is_none());
        drop((held, again));
        let all = permits.acquire_many(3).await.unwrap();
        assert!(permits.try_acquire().await.unwrap().is_none());
        all.release().await.unwrap();
    });
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    on_both(|provider| async move {
        let none = DistributedSemaphore::on(Arc::clone(&provider), unique(), 0);
        let some = DistributedSemaphore::on(provider, unique(), 3);
        let zero = Duration::ZERO;
        for refused in [
            none.acquire().await,
            none.acquire_many(0).await,
            some.acquire_many(0).await,
            some.acquire_many(4).await,
            some.acquire_many_for(4, zero).await,
        ] {
            assert_eq!(refused.unwrap_err().kind(), LockErrorKind::InvalidConfig);
        }
        drop(some.acquire_many(3).await.unwrap());
    });
}

#[test]
fn the_most_are_held_and_never_more() {
    on_both(|provider| async move {
        let permits = DistributedSemaphore::on(provider, unique(), 3);
        let (held, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..10 {
            let (permits, held, peak) = (permits.clone(), Arc::clone(&held), Arc::clone(&peak));
            tasks.push(tokio::spawn(async move {
                for _ in 0..25 {
                    let permit = permits.acquire().await.unwrap();
                    let now = held.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(now <= 3, "{now} hold permits");
                    peak.fetch_max(now, Ordering::SeqCst);
                    // Each holds its permit until all were held at the same time.
                    while peak.load(Ordering::SeqCst) < 3 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    tokio::task::yield_now().await;
                    held.fetch_sub(1, Ordering::SeqCst);
                    permit.release().await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(peak.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn callers_are_served_in_the_order_of_their_coming() {
    on_both(|provider| async move {
        let permits = DistributedSemaphore::on(provider, unique(), 3);
        let first = permits.acquire_many(3).await.unwrap();
        let (served, mut order) = mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for (number, take) in [1, 3, 1, 2, 2, 3, 1].into_iter().enumerate() {
            let (permits, served) = (permits.clone(), served.clone());
            let mut acquiring = Box::pin(async move {
                let permit = permits.acquire_many(take).await.unwrap();
                served.send(number).unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
                drop(permit);
            });
            assert!(poll_once(acquiring.as_mut()).await.is_none());
            tasks.push(tokio::spawn(acquiring));
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        drop(served);
        let mut seen = Vec::new();
        while let Some(number) = order.recv().await {
            seen.push(number);
        }
        // The third and the fourth fit beside each other.
        seen[2..4].sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn a_caller_of_three_is_not_starved_by_callers_of_one() {
    on_both(|provider| async move {
        let permits = DistributedSemaphore::on(provider, unique(), 3);
        let mut streams = Vec::new();
        for _ in 0..6 {
            let permits = permits.clone();
            streams.push(tokio::spawn(async move {
                loop {
                    let permit = permits.acquire().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    drop(permit);
                }
            }));
        }
        for _ in 0..20 {
            let three = permits.acquire_many_for(3, Duration::from_secs(10)).await;
            drop(three.expect("its turn comes"));
            tokio::task::yield_now().await;
        }
        for stream in &streams {
            stream.abort();
        }
        for stream in streams {
            let _ = stream.await;
        }
    });
}

#[test]
fn processes_share_the_permits() {
    run(async {
        let provider = TestProvider::new();
        let held = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let permits = permits_on(&provider.another_process(), "processes", 4);
            for take in [1, 2, 1, 3] {
                let (permits, held) = (permits.clone(), Arc::clone(&held));
                tasks.push(tokio::spawn(async move {
                    for _ in 0..20 {
                        let permit = permits.acquire_many(take).await.unwrap();
                        let now = held.fetch_add(take as usize, Ordering::SeqCst);
                        assert!(now + take as usize <= 4);
                        tokio::task::yield_now().await;
                        held.fetch_sub(take as usize, Ordering::SeqCst);
                        drop(permit);
                    }
                }));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        nothing_held(&provider).await;
    });
}

#[test]
fn a_permit_given_back_goes_to_the_next_without_the_server() {
    run(async {
        let provider = TestProvider::new();
        let permits = permits_on(&provider, "run", 2);
        let held = [
            permits.acquire().await.unwrap(),
            permits.acquire().await.unwrap(),
        ];
        let mut waiting: Vec<_> = (0..8).map(|_| Box::pin(permits.acquire())).collect();
        for acquiring in &mut waiting {
            assert!(poll_once(acquiring.as_mut()).await.is_none());
        }
        let released = provider.calls(Operation::Release);
        drop(held);
        for acquiring in waiting {
            drop(acquiring.await.unwrap());
        }
        let more = provider.calls(Operation::Release) - released;
        assert!(more <= 6, "{more} releases for 10 permits");
        nothing_held(&provider).await;
    });
}

#[test]
fn a_process_that_never_stops_keeps_no_other_out() {
    run(async {
        let provider = TestProvider::new();
        let here = permits_on(&provider, "endless", 1);
        let there = permits_on(&provider.another_process(), "endless", 1);
        let mut streams = Vec::new();
        for _ in 0..3 {
            let here = here.clone();
            streams.push(tokio::spawn(async move {
                loop {
                    let permit = here.acquire().await.unwrap();
                    tokio::task::yield_now().await;
                    drop(permit);
                }
            }));
        }
        for _ in 0..5 {
            let permit = there.acquire_for(Duration::from_secs(5)).await;
            drop(permit.expect("the run of one process ends"));
        }
        for stream in &streams {
            stream.abort();
        }
    });
}

#[test]
fn a_try_for_less_does_not_share_the_refusal_of_one_for_more() {
    run(async {
        let provider = TestProvider::new();
        let permits = permits_on(&provider, "less", 3);
        let elsewhere = permits_on(&provider.another_process(), "less", 3);
        let held = elsewhere.acquire().await.unwrap();
        provider.delay(Operation::Acquire, Duration::from_millis(20));
        let mut three = Box::pin(permits.try_acquire_many(3));
        let mut two = Box::pin(permits.try_acquire_many(2));
        assert!(poll_once(three.as_mut()).await.is_none());
        assert!(poll_once(two.as_mut()).await.is_none());
        assert!(three.await.unwrap().is_none());
        assert!(two.await.unwrap().is_some(), "two are free");
        drop(held);
    });
}

#[test]
fn a_try_waits_for_a_permit_that_is_on_its_way_back() {
    run(async {
        let provider = TestProvider::new();
        let permits = permits_on(&provider, "on-its-way", 1);
        let permit = permits.acquire().await.unwrap();
        provider.delay(Operation::Release, Duration::from_millis(50));
        drop(permit);
        let again = permits.try_acquire().await.unwrap();
        assert!(again.is_some(), "it was given back before it was asked for");
        drop(again);
        nothing_held(&provider).await;
    });
}

#[test]
fn a_loss_takes_one_grant_s_permits() {
    run(async {
        let provider = TestProvider::new();
        let permits = permits_on(&provider, "lost", 3);
        let two = permits.acquire_many(2).await.unwrap();
        provider.lose("lost");
        tokio::time::timeout(Duration::from_millis(50), two.lost())
            .await
            .expect("it is told");
        let one = permits.acquire().await.unwrap();
        assert!(!one.is_lost());
        assert_eq!(two.release().await.unwrap_err().kind(), LockErrorKind::Lost);
        one.release().await.unwrap();
        nothing_held(&provider).await;
    });
}

#[test]
fn permits_stay_for_their_min_hold() {
    on_both(|provider| async move {
        let hold = Duration::from_millis(120);
        let permits = DistributedSemaphore::on(provider, unique(), 2).min_hold(hold);
        let began = Instant::now();
        drop(permits.acquire().await.unwrap());
        drop(permits.acquire().await.unwrap());
        assert!(began.elapsed() < hold);
        assert!(permits.try_acquire().await.unwrap().is_none());
        drop(permits.acquire_for(BOUND).await.unwrap());
        assert!(began.elapsed() >= hold);
    });
}

#[test]
fn limits_of_callers_may_differ() {
    on_both(|provider| async move {
        let name = unique();
        let three = DistributedSemaphore::on(Arc::clone(&provider), name.as_str(), 3);
        let five = DistributedSemaphore::on(provider, name.as_str(), 5);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(three.acquire().await.unwrap());
        }
        assert!(three.try_acquire().await.unwrap().is_none());
        for _ in 0..2 {
            held.push(five.try_acquire().await.unwrap().expect("five say so"));
        }
        assert!(five.try_acquire().await.unwrap().is_none());
    });
}

#[test]
fn contention_is_told_only_where_permits_were_seen_taken() {
    run(async {
        let provider = TestProvider::new();
        let permits = permits_on(&provider, "seen", 2);
        let elsewhere = permits_on(&provider.another_process(), "seen", 2);
        let short = Duration::from_millis(60);
        let kind =
            |result: Result<_, lock_runtime::LockError>| result.map(drop).unwrap_err().kind();
        let both = elsewhere.acquire_many(2).await.unwrap();
        assert_eq!(
            kind(permits.acquire_for(Duration::ZERO).await),
            LockErrorKind::Contended
        );
        assert_eq!(
            kind(permits.acquire_for(short).await),
            LockErrorKind::TimedOut
        );
        both.release().await.unwrap();
        let one = permits.acquire().await.unwrap();
        provider.freeze(true);
        assert_eq!(
            kind(permits.acquire_for(short).await),
            LockErrorKind::ProviderUnavailable,
            "nobody knows whether the other one is free"
        );
        provider.freeze(false);
        drop(one);
        nothing_held(&provider).await;
    });
}

#[test]
fn one_who_wanted_more_and_left_is_in_nobody_s_way() {
    on_both(|provider| async move {
        let permits = DistributedSemaphore::on(provider, unique(), 3);
        let two = permits.acquire_many(2).await.unwrap();
        for _ in 0..20 {
            let mut wanting = Box::pin(permits.acquire_many(3));
            assert!(poll_once(wanting.as_mut()).await.is_none());
            // The server names the two to the call for three.
            tokio::time::sleep(Duration::from_millis(2)).await;
            drop(wanting);
            assert!(
                permits.try_acquire().await.unwrap().is_some(),
                "one is free"
            );
        }
        two.release().await.unwrap();
    });
}
