//! Wrappers forward what they are asked, and each caller is served by its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, DistributedRwLock,
    DistributedSemaphore, Grant, InProcessProvider, LockError, LockKind, LockName, LockProvider,
    LockSpace, LockState, Timestamp,
};
use lock_tests::poll_once;

use crate::run;

/// Counts the calls that are made through it.
struct Counting {
    inner: TestProvider,
    lease: Duration,
    calls: [AtomicUsize; 3],
}

impl Counting {
    fn new(inner: &TestProvider, lease: Duration) -> Arc<Self> {
        Arc::new(Self {
            inner: inner.clone(),
            lease,
            calls: Default::default(),
        })
    }

    fn count(&self, which: usize) {
        self.calls[which].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the numbers of acquisitions, renewals and releases.
    fn calls(&self) -> [usize; 3] {
        [0, 1, 2].map(|which| self.calls[which].load(Ordering::Relaxed))
    }
}

impl LockProvider for Counting {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities().with_lease(self.lease)
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.count(0);
        assert_eq!(request.lease(), self.lease, "its own lease is asked for");
        self.inner.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.count(1);
        self.inner.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.count(2);
        self.inner.release(grant)
    }

    fn lock_space(&self) -> LockSpace {
        self.inner.lock_space()
    }
}

#[test]
fn two_wrappers_of_one_space_each_serve_their_own() {
    run(async {
        let inner = TestProvider::new();
        let short = Duration::from_millis(300);
        let first = Counting::new(&inner, Duration::from_secs(30));
        let second = Counting::new(&inner, short);
        let locks = [&first, &second].map(|wrapper| {
            DistributedLock::on(Arc::clone(wrapper) as Arc<dyn LockProvider>, "shared")
        });
        let held = locks[0].acquire().await.expect("the lock is free");
        let refused = locks[1].try_acquire().await.expect("no error");
        assert!(refused.is_none(), "one space, one lock");
        let mut waiting = Box::pin(locks[1].acquire());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        held.release().await.expect("it was held");
        let guard = waiting.await.expect("it is free");
        assert_eq!(first.calls(), [1, 0, 1]);
        tokio::time::sleep(short * 2).await;
        assert!(!guard.is_lost());
        guard.release().await.expect("it was held");
        let [acquired, renewed, released] = second.calls();
        assert_eq!((acquired, released), (1, 1));
        assert!(renewed >= 3, "by its own lease, {renewed} times");
        assert_eq!(first.calls()[1], 0);
        assert_eq!(inner.calls(Operation::Release), 2);
    });
}

/// Forwards what a wrapper must forward, and shares the lock space or has its own.
struct Plain {
    inner: InProcessProvider,
    shares_space: bool,
    acquired: Arc<AtomicUsize>,
}

impl LockProvider for Plain {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async {
            let grant = self.inner.acquire(request).await?;
            self.acquired.fetch_add(1, Ordering::Relaxed);
            Ok(grant)
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.inner.release(grant)
    }

    fn lock_space(&self) -> LockSpace {
        match self.shares_space {
            true => self.inner.lock_space(),
            false => LockSpace::of(self),
        }
    }
}

/// The queue of the process is the lock itself: it must not be asked to wait for itself.
#[test]
fn wrappers_of_the_in_process_provider_exclude_it_and_each_other() {
    run(async {
        let inner = InProcessProvider::new();
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let wrapped = |shares_space: bool| {
            Arc::new(Plain {
                inner: inner.clone(),
                shares_space,
                acquired: Arc::clone(&counts[usize::from(shares_space)]),
            }) as Arc<dyn LockProvider>
        };
        let providers = [wrapped(true), wrapped(false), Arc::new(inner.clone())];
        let locks = providers.map(|provider| DistributedLock::on(provider, "wrapped"));
        let second = Duration::from_secs(1);
        let mut highest = None;
        for holder in &locks {
            for waiter in &locks {
                let held = holder.acquire_for(second).await.expect("the lock is free");
                for other in &locks {
                    let refused = other.try_acquire().await.expect("no error");
                    assert!(refused.is_none(), "it is held");
                }
                let mut waiting = Box::pin(waiter.acquire_for(second));
                assert!(poll_once(waiting.as_mut()).await.is_none());
                assert!(held.fencing_token() > highest, "tokens grow");
                highest = held.fencing_token();
                held.release().await.expect("it was held");
                let taken = waiting.await.expect("it is free");
                assert!(taken.fencing_token() > highest, "each grant has a token");
                highest = taken.fencing_token();
                taken.release().await.expect("it was held");
            }
        }
        for count in &counts {
            let acquired = count.load(Ordering::Relaxed);
            assert_eq!(acquired, 6, "each grant is acquired through its wrapper");
        }
    });
}

/// The same for readers, writers and permits.
#[test]
fn wrappers_of_the_in_process_provider_share_its_readers_and_permits() {
    run(async {
        let inner = InProcessProvider::new();
        let wrapped = |shares_space: bool| {
            Arc::new(Plain {
                inner: inner.clone(),
                shares_space,
                acquired: Arc::default(),
            }) as Arc<dyn LockProvider>
        };
        let providers = [wrapped(true), wrapped(false), Arc::new(inner.clone())];
        let locks = [0, 1, 2].map(|at| DistributedRwLock::on(Arc::clone(&providers[at]), "rw"));
        let permits = providers.map(|provider| DistributedSemaphore::on(provider, "permits", 4));
        let second = Duration::from_secs(1);
        let mut highest = None;
        for one in 0..3 {
            for other in 0..3 {
                let first = locks[one].read_for(second).await.expect("nobody writes");
                let also = locks[other].read_for(second).await.expect("nobody writes");
                for lock in &locks {
                    assert!(lock.try_write().await.expect("no error").is_none());
                }
                assert!(first.fencing_token() > highest);
                let mut writing = Box::pin(locks[other].write_for(second));
                assert!(poll_once(writing.as_mut()).await.is_none());
                drop(first);
                assert!(poll_once(writing.as_mut()).await.is_none());
                drop(also);
                let written = writing.await.expect("nobody reads");
                for lock in &locks {
                    assert!(lock.try_read().await.expect("no error").is_none());
                    assert!(lock.try_write().await.expect("no error").is_none());
                }
                highest = written.fencing_token();
                written.release().await.expect("it was held");

                let first = permits[one].acquire_many_for(2, second).await;
                let also = permits[other].acquire_many_for(2, second).await;
                for permits in &permits {
                    assert!(permits.try_acquire().await.expect("no error").is_none());
                }
                let mut waiting = Box::pin(permits[one].acquire_for(second));
                assert!(poll_once(waiting.as_mut()).await.is_none());
                drop(first.expect("all are free"));
                drop(waiting.await.expect("two are free"));
                drop(also.expect("two were free"));
            }
        }
    });
}

/// Does not forward whether a grant may be shared, so that the library finds out by itself.
struct Silent(TestProvider);

impl LockProvider for Silent {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.acquire(request)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }

    fn lock_space(&self) -> LockSpace {
        self.0.lock_space()
    }
}

#[test]
fn a_provider_that_knows_no_question_is_asked_for_a_second_grant() {
    run(async {
        let inner = TestProvider::new();
        let lock = DistributedRwLock::on(Arc::new(Silent(inner.clone())), "silent");
        let elsewhere = inner.another_process();
        let elsewhere = DistributedRwLock::on(Arc::new(elsewhere), "silent");
        let first = lock.read().await.expect("nobody writes");
        tokio::time::sleep(Duration::from_millis(11)).await;
        let second = lock.read().await.expect("nobody writes");
        assert_eq!(first.fencing_token(), second.fencing_token());
        assert_eq!(inner.calls(Operation::MayShare), 0);
        assert_eq!(inner.calls(Operation::Acquire), 2);
        assert_eq!(inner.holders("silent"), 1, "the second one was given back");
        let mut writing = Box::pin(elsewhere.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        tokio::time::sleep(Duration::from_millis(11)).await;
        let refused = lock.try_read().await.expect("no error");
        assert!(refused.is_none(), "a writer waits elsewhere");
        drop((first, second));
        drop(writing.await.expect("nobody reads"));
    });
}

/// The provider has methods that are not required of one; an `Arc` forwards them all.
#[test]
fn an_arc_forwards_every_method() {
    struct Says;
    impl LockProvider for Says {
        fn capabilities(&self) -> Capabilities {
            Capabilities::new("says")
        }
        fn acquire<'a>(&'a self, _: &'a AcquireRequest) -> BoxFuture<'a, Result<Grant, LockError>> {
            unreachable!("it is not asked")
        }
        fn release<'a>(&'a self, _: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
            unreachable!("it is not asked")
        }
        fn release_later<'a>(
            &'a self,
            _: &'a Grant,
            keep_for: Duration,
        ) -> BoxFuture<'a, Result<(), LockError>> {
            assert_eq!(keep_for, Duration::from_secs(7));
            Box::pin(async { Ok(()) })
        }
        fn may_share<'a>(&'a self, _: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
            Box::pin(async { Ok(false) })
        }
        fn upgrade<'a>(
            &'a self,
            _: &'a Grant,
            request: &'a AcquireRequest,
        ) -> BoxFuture<'a, Result<Grant, LockError>> {
            Box::pin(async { Ok(Grant::new(request, Timestamp::now())) })
        }
        fn acquire_several<'a>(
            &'a self,
            requests: &'a [AcquireRequest],
        ) -> Option<BoxFuture<'a, Vec<Result<Grant, LockError>>>> {
            let all = requests.iter();
            let all = all.map(|request| Ok(Grant::new(request, Timestamp::now())));
            Some(Box::pin(async { all.collect() }))
        }
        fn inspect<'a>(
            &'a self,
            _: &'a LockName,
            _: LockKind,
        ) -> BoxFuture<'a, Result<LockState, LockError>> {
            Box::pin(async { Ok(LockState::default().with_waiters(7)) })
        }
        fn clone_of(&self) -> Option<LockSpace> {
            Some(self.lock_space())
        }
    }
    run(async {
        let says = Arc::new(Says);
        let space = says.lock_space();
        let shared = Arc::new(says);
        let (request, _) = AcquireRequest::new("arc", Duration::from_secs(1), false).expect("ok");
        let grant = Grant::new(&request, Timestamp::now());
        let later = LockProvider::release_later(&shared, &grant, Duration::from_secs(7));
        later.await.expect("it is forwarded");
        let may_share = LockProvider::may_share(&shared, &grant).await;
        assert!(!may_share.expect("it is forwarded"));
        let upgraded = LockProvider::upgrade(&shared, &grant, &request).await;
        assert_eq!(upgraded.expect("it is forwarded").owner(), request.owner());
        let requests = [request];
        let several = LockProvider::acquire_several(&shared, &requests);
        assert_eq!(several.expect("it is forwarded").await.len(), 1);
        let state = LockProvider::inspect(&shared, &"arc".into(), LockKind::Mutex).await;
        assert_eq!(state.expect("it is forwarded").waiters(), Some(7));
        assert_eq!(LockProvider::clone_of(&shared), Some(space));
        assert_eq!(LockProvider::lock_space(&shared), space);
    });
}
