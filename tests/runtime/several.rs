//! Several locks: all or none, in one order, within one timeout.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider, entries_under};
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, DistributedMultiLock,
    DistributedRwLock, DistributedSemaphore, Grant, InProcessProvider, LockError, LockErrorKind,
    LockProvider, LockSpace, MultiLockGuard, Timestamp,
};
use lock_tests::{Rng, eventually, poll_once, unique};

use crate::{BOUND, lock_on, nothing_held, run, shared};

/// A provider that takes its locks one by one.
struct OneByOne(TestProvider);

impl LockProvider for OneByOne {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.0.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }

    fn lock_space(&self) -> LockSpace {
        self.0.lock_space()
    }
}

/// Runs the test on a provider that takes several at once, on one that does not, and in process.
fn on_each<F: Future<Output = ()> + Send + 'static>(
    test: impl Fn(Arc<dyn LockProvider>) -> F + Send + 'static,
) {
    run(async move {
        let provider = TestProvider::new();
        test(shared(provider.clone())).await;
        nothing_held(&provider).await;
        test(shared(OneByOne(provider.clone()))).await;
        nothing_held(&provider).await;
        test(shared(InProcessProvider::new())).await;
    });
}

/// Makes names in the order of their bytes.
fn names<const N: usize>() -> [String; N] {
    let base = unique();
    std::array::from_fn(|index| format!("{base}:{index}"))
}

fn several_on(provider: &TestProvider, names: &[String]) -> DistributedMultiLock {
    DistributedMultiLock::on(shared(provider.clone()), names)
}

fn kind<T>(result: Result<T, LockError>) -> (LockErrorKind, String) {
    let error = result.err().expect("it fails");
    let name = error.name().map(ToString::to_string);
    (error.kind(), name.unwrap_or_default())
}

#[test]
fn all_are_held_and_all_are_released() {
    on_each(|provider| async move {
        let [a, b, c] = names();
        let locks = DistributedMultiLock::on(Arc::clone(&provider), [&c, &a, &b, &a]);
        let guard = locks.acquire().await.unwrap();
        let held: Vec<_> = guard.names().map(ToString::to_string).collect();
        assert_eq!(held, [a.clone(), b.clone(), c.clone()]);
        assert!(!guard.is_lost());
        let tokens: Vec<_> = guard.tokens().collect();
        assert_eq!(tokens.len(), 3);
        for (name, token) in tokens {
            assert_eq!(guard.fencing_token(name), Some(token));
        }
        assert_eq!(guard.fencing_token("another"), None);
        for name in [&a, &b, &c] {
            let lock = DistributedLock::on(Arc::clone(&provider), name);
            assert!(lock.try_acquire().await.unwrap().is_none());
        }
        assert!(locks.try_acquire().await.unwrap().is_none());
        guard.release().await.unwrap();
        for name in [&a, &b, &c] {
            let lock = DistributedLock::on(Arc::clone(&provider), name);
            drop(lock.try_acquire().await.unwrap().expect("it is free"));
        }
    });
}

#[test]
fn what_is_free_is_asked_for_at_once() {
    run(async {
        let provider = TestProvider::new();
        let guard = several_on(&provider, &names::<3>()).acquire().await;
        assert_eq!(provider.calls(Operation::AcquireSeveral), 1);
        assert_eq!(provider.calls(Operation::Acquire), 0);
        guard.unwrap().release().await.unwrap();
        assert_eq!(provider.held(), 0);
    });
}

#[test]
fn the_rest_is_asked_for_at_once_after_each_wait() {
    run(async {
        let provider = TestProvider::new();
        let all = names::<4>();
        let elsewhere = lock_on(&provider.another_process(), &all[1]);
        let other = elsewhere.acquire().await.unwrap();
        let locks = several_on(&provider, &all);
        let waiting = tokio::spawn(async move { locks.acquire().await });
        eventually(
            "the first is held and the second awaited",
            BOUND,
            || async { provider.is_held(&all[0]) && provider.calls(Operation::Acquire) == 2 },
        )
        .await;
        assert!(!provider.is_held(&all[2]), "not before the second is held");
        other.release().await.unwrap();
        let guard = waiting.await.unwrap().unwrap();
        assert_eq!(provider.calls(Operation::AcquireSeveral), 2);
        guard.release().await.unwrap();
        nothing_held(&provider).await;
    });
}

#[test]
fn a_try_that_fails_names_the_lock_and_leaves_nothing() {
    on_each(|provider| async move {
        let all = names::<3>();
        let middle = DistributedLock::on(Arc::clone(&provider), &all[1]);
        let held = middle.acquire().await.unwrap();
        let locks = DistributedMultiLock::on(Arc::clone(&provider), &all);
        let (refused, name) = kind(locks.acquire_for(Duration::ZERO).await);
        assert_eq!((refused, &name), (LockErrorKind::Contended, &all[1]));
        for name in [&all[0], &all[2]] {
            let lock = DistributedLock::on(Arc::clone(&provider), name);
            drop(lock.acquire_for(BOUND).await.unwrap());
        }
        held.release().await.unwrap();
        drop(locks.acquire_for(BOUND).await.unwrap());
    });
}

#[test]
fn one_timeout_is_for_all() {
    on_each(|provider| async move {
        let all = names::<2>();
        let lock = |index: usize| DistributedLock::on(Arc::clone(&provider), &all[index]);
        let first = lock(0).acquire().await.unwrap();
        let second = lock(1).acquire().await.unwrap();
        let locks = DistributedMultiLock::on(Arc::clone(&provider), &all);
        let began = Instant::now();
        let waiting = tokio::spawn(async move {
            let refused = kind(locks.acquire_for(Duration::from_millis(300)).await);
            (refused, began.elapsed())
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(first);
        let (refused, took) = waiting.await.unwrap();
        assert_eq!(refused, (LockErrorKind::TimedOut, all[1].clone()));
        assert!(took >= Duration::from_millis(300), "{took:?}");
        assert!(took < Duration::from_millis(450), "{took:?}");
        drop(lock(0).acquire_for(BOUND).await.expect("it was given back"));
        drop(second);
    });
}

#[test]
fn a_place_in_a_later_queue_is_taken_only_when_the_earlier_locks_are_held() {
    on_each(|provider| async move {
        let all = names::<3>();
        let lock = |index: usize| DistributedLock::on(Arc::clone(&provider), &all[index]);
        let first = lock(0).acquire().await.unwrap();
        let locks = DistributedMultiLock::on(Arc::clone(&provider), &all);
        let mut waiting = pin!(locks.acquire());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        // Others come later, and go first.
        drop(lock(1).acquire_for(BOUND).await.unwrap());
        drop(lock(2).acquire_for(BOUND).await.unwrap());
        drop(first);
        drop(waiting.await.unwrap());
    });
}

/// Takes turns with pairs of names that others take in the opposite order.
#[test]
fn no_two_calls_wait_for_each_other() {
    on_each(|provider| async move {
        let all = Arc::new(names::<5>());
        let inside: Arc<[AtomicUsize; 5]> = Arc::default();
        let tasks = (0..8).map(|seed| {
            let (provider, all, inside) =
                (Arc::clone(&provider), Arc::clone(&all), Arc::clone(&inside));
            tokio::spawn(async move {
                let mut rng = Rng::new(seed);
                for _ in 0..40 {
                    let picked = [rng.below(5), rng.below(5), rng.below(5)];
                    let names = picked.map(|index| all[index].as_str());
                    let locks = DistributedMultiLock::on(Arc::clone(&provider), names);
                    let guard = locks.acquire_for(BOUND).await.unwrap();
                    let mut once = picked.to_vec();
                    once.sort_unstable();
                    once.dedup();
                    for index in &once {
                        assert_eq!(inside[*index].fetch_add(1, Ordering::SeqCst), 0);
                    }
                    tokio::task::yield_now().await;
                    for index in &once {
                        inside[*index].fetch_sub(1, Ordering::SeqCst);
                    }
                    drop(guard);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

#[test]
fn a_lock_that_is_lost_during_the_wait_is_taken_anew() {
    run(async {
        let provider = TestProvider::new();
        let all = names::<3>();
        let elsewhere = provider.another_process();
        let last = lock_on(&elsewhere, &all[2]).acquire().await.unwrap();
        let locks = several_on(&provider, &all);
        let waiting = tokio::spawn(async move { locks.acquire_for(BOUND).await });
        // It waits for the last one, so it has the others.
        eventually("the others are held", BOUND, || async {
            provider.calls(Operation::Acquire) >= 2
        })
        .await;
        provider.lose(&all[0]);
        eventually("both are taken anew", BOUND, || async {
            provider.is_held(&all[0])
                && provider.is_held(&all[1])
                && provider.calls(Operation::Release) >= 2
        })
        .await;
        last.release().await.unwrap();
        let guard = waiting.await.unwrap().unwrap();
        assert!(!guard.is_lost());
        guard.release().await.unwrap();
        nothing_held(&provider).await;
    });
}

#[test]
fn the_loss_of_one_is_the_loss_of_all() {
    run(async {
        let provider = TestProvider::new();
        let all = names::<3>();
        for lost in &all {
            let guard = several_on(&provider, &all).acquire().await.unwrap();
            let mut signal = guard.lost();
            assert!(poll_once(pin!(&mut signal)).await.is_none());
            let too = signal.clone();
            provider.lose(lost);
            signal.await;
            too.await;
            assert!(guard.is_lost());
            let refused = kind(guard.release().await);
            assert_eq!(refused, (LockErrorKind::Lost, lost.clone()));
            nothing_held(&provider).await;
        }
    });
}

#[test]
fn a_release_that_fails_keeps_no_other_from_its_own() {
    run(async {
        let provider = TestProvider::new();
        let all = names::<3>();
        let guard = several_on(&provider, &all).acquire().await.unwrap();
        provider.fail_next(Operation::Release, 1);
        let (refused, _) = kind(guard.release().await);
        assert_eq!(refused, LockErrorKind::ProviderUnavailable);
        assert_eq!(provider.calls(Operation::Release), 3);
        assert_eq!(provider.held(), 1);
        all.iter().for_each(|name| provider.forget(name));
    });
}

#[test]
fn a_task_that_holds_one_of_them_takes_none() {
    on_each(|provider| async move {
        let all = names::<3>();
        let locks = DistributedMultiLock::on(Arc::clone(&provider), &all);
        let last = DistributedLock::on(Arc::clone(&provider), &all[2]);
        let (refused, first) = last
            .run(async {
                let first = DistributedLock::on(Arc::clone(&provider), &all[0]);
                (kind(locks.acquire().await), first.try_acquire().await)
            })
            .await
            .unwrap();
        assert_eq!(refused, (LockErrorKind::WouldDeadlock, all[2].clone()));
        drop(first.unwrap().expect("nobody ever had it"));
    });
}

#[test]
fn what_a_name_is_wanted_for_is_put_together() {
    on_each(|provider| async move {
        let [prices, calls, order] = names();
        let prices = DistributedRwLock::on(Arc::clone(&provider), prices);
        let calls = DistributedSemaphore::on(Arc::clone(&provider), calls, 3);
        let locks = DistributedMultiLock::on(Arc::clone(&provider), [&order])
            .and(prices.reading())
            .and(calls.taking(2))
            .and(DistributedLock::on(Arc::clone(&provider), &order));
        let guard = locks.acquire().await.unwrap();
        assert_eq!(guard.names().count(), 3);
        let beside = prices.try_read().await.unwrap().expect("beside a reader");
        assert!(prices.try_write().await.unwrap().is_none());
        drop(beside);
        let third = calls
            .try_acquire()
            .await
            .unwrap()
            .expect("the third permit");
        assert!(calls.try_acquire().await.unwrap().is_none());
        drop(third);
        guard.release().await.unwrap();

        // The stronger mode, and the higher number of permits.
        let locks = locks.and(prices.writing()).and(calls.taking(3));
        let guard = locks.acquire_for(BOUND).await.unwrap();
        assert_eq!(guard.names().count(), 3);
        assert!(prices.try_read().await.unwrap().is_none());
        assert!(calls.try_acquire().await.unwrap().is_none());
        let name = prices.name().clone();
        assert!(guard.fencing_token(&name).is_some());
        assert_eq!(guard.fencing_token(calls.name()), None);
        drop(guard);
        drop(calls.acquire_many_for(3, BOUND).await.unwrap());
    });
}

#[test]
fn what_cannot_be_taken_together_is_refused() {
    on_each(|provider| async move {
        let config = LockErrorKind::InvalidConfig;
        let [a, b] = names();
        let none = DistributedMultiLock::on(Arc::clone(&provider), [""; 0]);
        assert_eq!(kind(none.acquire().await).0, config);
        let base = unique();
        let many = |count: usize| {
            let names = (0..count).map(|index| format!("{base}:{index}"));
            DistributedMultiLock::on(Arc::clone(&provider), names)
        };
        many(64).acquire().await.unwrap().release().await.unwrap();
        assert_eq!(kind(many(65).acquire().await).0, config);
        let elsewhere = DistributedLock::on(shared(InProcessProvider::new()), &b);
        let mixed = DistributedMultiLock::on(Arc::clone(&provider), [&a]).and(elsewhere);
        assert_eq!(kind(mixed.acquire().await), (config, b.clone()));
        let kinds = DistributedMultiLock::on(Arc::clone(&provider), [&a])
            .and(DistributedRwLock::on(Arc::clone(&provider), &a).writing());
        assert_eq!(kind(kinds.acquire().await), (config, a.clone()));
        let empty = DistributedMultiLock::on(Arc::clone(&provider), [a.as_str(), ""]);
        assert_eq!(kind(empty.acquire().await).0, LockErrorKind::InvalidName);
        let lease = DistributedMultiLock::on(provider, [&a, &b]).lease(Duration::from_nanos(1));
        assert_eq!(kind(lease.acquire().await), (config, a));
    });
}

#[test]
fn each_lock_keeps_its_own_settings() {
    run(async {
        let provider = TestProvider::new();
        let [a, b, c] = names();
        let (short, long) = (Duration::from_secs(2), Duration::from_secs(5));
        let locks = several_on(&provider, &[a.clone(), b.clone()])
            .lease(long)
            .and(lock_on(&provider, &b).lease(short))
            .and(lock_on(&provider, &c).lease(short));
        let guard = locks.acquire().await.unwrap();
        assert_eq!(provider.lease_of(&a), Some(long));
        assert_eq!(provider.lease_of(&b), Some(short));
        assert_eq!(provider.lease_of(&c), Some(short));
        drop(guard);
        nothing_held(&provider).await;
    });
}

#[test]
fn a_min_hold_counts_once_all_are_held() {
    on_each(|provider| async move {
        let all = names::<2>();
        let (rest, lock) = (Duration::from_secs(1), |index: usize| {
            DistributedLock::on(Arc::clone(&provider), &all[index])
        });
        let second = lock(1).acquire().await.unwrap();
        let locks = DistributedMultiLock::on(Arc::clone(&provider), &all).min_hold(rest);
        let refused = locks.try_acquire_for(Duration::from_millis(20)).await;
        assert!(refused.unwrap().is_none());
        let began = Instant::now();
        drop(
            lock(0)
                .acquire_for(BOUND)
                .await
                .expect("nothing was done under it"),
        );
        assert!(began.elapsed() < rest / 2);
        drop(second);
        let guard = locks.acquire_for(BOUND).await.unwrap();
        let began = Instant::now();
        guard.release().await.unwrap();
        for index in [0, 1] {
            drop(lock(index).acquire_for(BOUND).await.unwrap());
            assert!(began.elapsed() > rest - rest / 10);
        }
    });
}

#[test]
fn a_try_of_another_caller_is_not_refused_by_a_lock_that_was_not_asked_for() {
    run(async {
        let provider = TestProvider::new();
        let all = names::<3>();
        let elsewhere = lock_on(&provider.another_process(), &all[1]);
        let other = elsewhere.acquire().await.unwrap();
        provider.freeze(true);
        let locks = several_on(&provider, &all);
        let mut trying = pin!(locks.try_acquire());
        assert!(poll_once(trying.as_mut()).await.is_none());
        eventually("all are asked for", BOUND, || async {
            provider.calls(Operation::AcquireSeveral) == 1
        })
        .await;
        let last = lock_on(&provider, &all[2]);
        let mut last = pin!(last.try_acquire());
        assert!(poll_once(last.as_mut()).await.is_none());
        provider.freeze(false);
        assert!(trying.await.unwrap().is_none());
        drop(last.await.unwrap().expect("nobody has the last one"));
        other.release().await.unwrap();
    });
}

/// Answers wrongly when it is asked for several locks.
struct Misbehaving(TestProvider, fn(Vec<Answer>) -> Vec<Answer>);

type Answer = Result<Grant, LockError>;

impl LockProvider for Misbehaving {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn acquire<'a>(&'a self, request: &'a AcquireRequest) -> BoxFuture<'a, Answer> {
        self.0.acquire(request)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }

    fn acquire_several<'a>(
        &'a self,
        requests: &'a [AcquireRequest],
    ) -> Option<BoxFuture<'a, Vec<Answer>>> {
        let answers = self.0.acquire_several(requests)?;
        Some(Box::pin(async { self.1(answers.await) }))
    }
}

#[test]
fn wrong_answers_leave_nothing() {
    type Wrong = fn(Vec<Answer>) -> Vec<Answer>;
    let panics: Wrong = |_| panic!("as the test wants it");
    let none: Wrong = |answers| answers.into_iter().take(1).collect();
    let out_of_order: Wrong = |mut answers| {
        answers[1] = Err(LockErrorKind::Contended.into());
        answers
    };
    let fails: Wrong = |mut answers| {
        answers[0] = Err(LockErrorKind::ProviderUnavailable.into());
        answers
    };
    run(async move {
        for (wrong, left) in [(panics, 0), (none, 2), (out_of_order, 1), (fails, 1)] {
            let provider = TestProvider::new();
            let wrapper = shared(Misbehaving(provider.clone(), wrong));
            let locks = DistributedMultiLock::on(wrapper, names::<3>());
            locks.try_acquire().await.err_or_none();
            // What it did not answer for cannot be given back.
            eventually("the rest is given back", BOUND, || async {
                provider.held() == left
            })
            .await;
        }
    });
}

trait ErrOrNone {
    fn err_or_none(self);
}

impl ErrOrNone for Result<Option<MultiLockGuard>, LockError> {
    fn err_or_none(self) {
        assert!(!matches!(self, Ok(Some(_))), "it did not get all");
    }
}

#[test]
fn a_future_that_is_dropped_at_any_await_leaves_nothing() {
    on_each(|provider| async move {
        for held in 0..3 {
            for polls in 0..40 {
                let all = names::<3>();
                let lock = |index: usize| DistributedLock::on(Arc::clone(&provider), &all[index]);
                let other = lock(held).acquire().await.unwrap();
                let locks = DistributedMultiLock::on(Arc::clone(&provider), &all);
                let mut acquiring = Box::pin(locks.acquire());
                let mut got = None;
                let mut other = Some(other);
                for poll in 0..polls {
                    if poll == polls / 2 {
                        drop(other.take());
                    }
                    got = poll_once(acquiring.as_mut()).await;
                    if got.is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                drop((acquiring, got, other));
                for index in 0..3 {
                    let free = lock(index).acquire_for(BOUND).await;
                    free.expect("it is free soon").release().await.unwrap();
                }
                drop(locks);
                eventually("the slots go away", BOUND, || async {
                    all.iter().all(|name| entries_under(name) == 0)
                })
                .await;
            }
        }
    });
}
