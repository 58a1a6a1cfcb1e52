//! Readers who may become the writer: beside whom they read, and what an upgrade waits for.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider, entries_under, keys_in_use};
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedRwLock, FileProvider, Grant, Holder,
    InProcessProvider, LockError, LockErrorKind, LockMode, LockProvider, LockSpace,
    RwLockUpgradeableReadGuard, Timestamp, UpgradeError, distributed_lock,
};
use lock_tests::{Scratch, eventually, poll_once, unique};

use crate::{BOUND, nothing_held, run, shared};

/// No timeout here passes by itself but those that a test waits for.
const SHORT: Duration = Duration::from_millis(30);

/// A wrapper that tells late what an upgrade has led to.
struct Late<P> {
    inner: P,
    by: Mutex<Duration>,
    /// The grants of readers once more, by which a test can end them.
    reads: Mutex<Vec<Grant>>,
}

impl<P: LockProvider> Late<P> {
    fn new(inner: P) -> Arc<Self> {
        Arc::new(Self {
            inner,
            by: Mutex::default(),
            reads: Mutex::default(),
        })
    }

    fn answers_after(&self, delay: Duration) {
        *self.by.lock().unwrap() = delay;
    }
}

impl<P: LockProvider> LockProvider for Late<P> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        if request.mode() == LockMode::Read {
            let again = Grant::new(request, Timestamp::now());
            self.reads.lock().unwrap().push(again);
        }
        self.inner.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.inner.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.inner.release(grant)
    }

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        self.inner.may_share(grant)
    }

    fn upgrade<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        let delay = *self.by.lock().unwrap();
        Box::pin(async move {
            let answer = self.inner.upgrade(grant, request).await;
            tokio::time::sleep(delay).await;
            answer
        })
    }

    fn lock_space(&self) -> LockSpace {
        self.inner.lock_space()
    }
}

/// A wrapper whose queues are not those of the provider inside.
struct Apart(InProcessProvider);

impl LockProvider for Apart {
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

    fn upgrade<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.upgrade(grant, request)
    }
}

fn rw_on(provider: &TestProvider, name: &str) -> DistributedRwLock {
    DistributedRwLock::on(shared(provider.clone()), name)
}

/// Runs a test on a server, in this process alone, and behind a wrapper of that.
fn everywhere<F: Future<Output = ()> + Send + 'static>(
    test: impl Fn(Arc<dyn LockProvider>) -> F + Send + 'static,
) {
    run(async move {
        let provider = TestProvider::new();
        test(shared(provider.clone())).await;
        nothing_held(&provider).await;
        test(shared(InProcessProvider::new())).await;
        test(shared(Late::new(InProcessProvider::new()))).await;
    });
}

/// Returns the reader, who is still one.
fn reader(failed: UpgradeError, kind: LockErrorKind) -> RwLockUpgradeableReadGuard {
    assert_eq!(failed.kind(), kind, "{failed}");
    failed.into_guard().expect("the reader is still one")
}

#[test]
fn one_that_may_upgrade_reads_beside_plain_readers_and_no_other_such_one() {
    everywhere(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let plain = lock.read().await.unwrap();
        let may = lock.try_upgradeable_read().await.unwrap().unwrap();
        let another = lock.try_read().await.unwrap().expect("readers come in");
        assert!(lock.try_upgradeable_read().await.unwrap().is_none());
        assert!(lock.try_write().await.unwrap().is_none());
        let late = lock.upgradeable_read_for(SHORT).await.unwrap_err();
        assert_eq!(late.kind(), LockErrorKind::TimedOut);
        let mut second = Box::pin(lock.upgradeable_read());
        assert!(poll_once(second.as_mut()).await.is_none());
        may.release().await.unwrap();
        let second = second.await.unwrap();
        drop((plain, another));
        drop(second);
        drop(lock.write().await.unwrap());
    });
}

#[test]
fn whoever_inspects_the_lock_sees_who_may_upgrade() {
    run(async {
        for provider in [
            shared(TestProvider::new()),
            shared(InProcessProvider::new()),
        ] {
            let lock = DistributedRwLock::on(provider, "inspected");
            let guards = (lock.read().await, lock.upgradeable_read().await);
            let told = lock.inspect().await.unwrap();
            let modes: Vec<_> = told.holders().iter().map(Holder::mode).collect();
            assert_eq!(modes.len(), 2, "{modes:?}");
            assert!(modes.contains(&Some(LockMode::Upgradeable)), "{modes:?}");
            drop(guards);
        }
    });
}

#[test]
fn those_who_come_behind_one_who_waits_for_the_right_wait_too() {
    everywhere(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let may = lock.upgradeable_read().await.unwrap();
        let mut second = Box::pin(lock.upgradeable_read());
        assert!(poll_once(second.as_mut()).await.is_none());
        assert!(lock.try_read().await.unwrap().is_none(), "it comes after");
        let late = lock.read_for(SHORT).await.unwrap_err();
        assert_eq!(late.kind(), LockErrorKind::TimedOut);
        let mut behind = Box::pin(lock.read());
        assert!(poll_once(behind.as_mut()).await.is_none());
        drop(may);
        drop((second.await.unwrap(), behind.await.unwrap()));
    });
}

#[test]
fn alone_it_becomes_the_writer_at_once() {
    everywhere(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let before = lock.write().await.unwrap().fencing_token().unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        let read = may.fencing_token().unwrap();
        let writes = may.upgrade().await.unwrap();
        assert_eq!(writes.name(), lock.name());
        let written = writes.fencing_token().unwrap();
        assert!(before < read && read < written, "{before} {read} {written}");
        assert!(lock.try_read().await.unwrap().is_none());
        assert!(lock.try_upgradeable_read().await.unwrap().is_none());
        assert!(!writes.is_lost());
        writes.release().await.unwrap();
        let after = lock.read().await.unwrap().fencing_token().unwrap();
        assert!(written < after);
        let may = lock.upgradeable_read().await.unwrap();
        drop(may.upgrade_for(Duration::ZERO).await.expect("nobody reads"));
    });
}

#[test]
fn an_upgrade_waits_for_the_readers_and_goes_before_a_writer() {
    everywhere(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let plain = lock.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        let mut writing = Box::pin(lock.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none(), "one reads");
        assert!(lock.try_read().await.unwrap().is_none());
        let mut late = Box::pin(lock.read());
        assert!(poll_once(late.as_mut()).await.is_none());
        plain.release().await.unwrap();
        let upgraded = upgrade.await.unwrap();
        assert!(poll_once(writing.as_mut()).await.is_none());
        assert!(poll_once(late.as_mut()).await.is_none());
        upgraded.release().await.unwrap();
        let written = writing.await.unwrap();
        assert!(poll_once(late.as_mut()).await.is_none());
        drop(written);
        drop(late.await.unwrap());
    });
}

#[test]
fn readers_who_come_during_an_upgrade_come_in_after_it() {
    everywhere(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let plain = lock.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        let mut reading = Box::pin(lock.read());
        assert!(poll_once(reading.as_mut()).await.is_none());
        let late = lock.read_for(SHORT).await.unwrap_err();
        assert_eq!(late.kind(), LockErrorKind::TimedOut, "an upgrade waits");
        drop(plain);
        let writes = upgrade.await.unwrap();
        assert!(poll_once(reading.as_mut()).await.is_none());
        drop(writes);
        drop(reading.await.unwrap());
    });
}

#[test]
fn after_a_timeout_it_is_still_a_reader_and_others_come_in_again() {
    everywhere(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let plain = lock.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        let token = may.fencing_token();
        let failed = may.upgrade_for(Duration::ZERO).await.unwrap_err();
        let may = reader(failed, LockErrorKind::Contended);
        let failed = may.upgrade_for(SHORT).await.unwrap_err();
        let may = reader(failed, LockErrorKind::TimedOut);
        assert_eq!(may.fencing_token(), token);
        assert!(!may.is_lost());
        let beside = lock.read_for(BOUND).await.expect("readers come in again");
        assert!(lock.try_write().await.unwrap().is_none());
        drop((plain, beside));
        let writes = may.upgrade().await.expect("it still may");
        writes.release().await.unwrap();
        drop(lock.write().await.unwrap());
    });
}

/// Those who waited for the upgrade go on when it has failed.
#[test]
fn a_failed_upgrade_lets_in_who_waited_for_it() {
    everywhere(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let plain = lock.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        let mut upgrade = Box::pin(may.upgrade_for(SHORT));
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        let mut reading = Box::pin(lock.read());
        assert!(poll_once(reading.as_mut()).await.is_none());
        let may = reader(upgrade.await.unwrap_err(), LockErrorKind::TimedOut);
        drop(reading.await.expect("it reads beside the two"));
        drop((plain, may));
    });
}

/// Two who each want to read and then to write: the second gets the right when the first has
/// written.
#[test]
fn two_that_upgrade_never_wait_for_each_other() {
    everywhere(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let (first, second) = tokio::join!(
            async {
                let may = lock.upgradeable_read().await?;
                tokio::task::yield_now().await;
                Ok::<_, LockError>(may.upgrade().await?.fencing_token())
            },
            async {
                let may = lock.upgradeable_read().await?;
                tokio::task::yield_now().await;
                Ok::<_, LockError>(may.upgrade().await?.fencing_token())
            },
        );
        assert!(first.unwrap() < second.unwrap());
    });
}

#[test]
fn a_dropped_upgrade_gives_everything_back() {
    everywhere(|provider| async move {
        let lock = DistributedRwLock::on(provider, unique());
        let plain = lock.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        let mut reading = Box::pin(lock.read());
        assert!(poll_once(reading.as_mut()).await.is_none());
        drop(upgrade);
        drop(reading.await.unwrap());
        let may = lock.upgradeable_read_for(BOUND).await;
        drop(may.expect("nobody may upgrade"));
        drop(plain);
        drop(lock.write_for(BOUND).await.expect("nobody reads"));
    });
}

#[test]
fn an_upgrade_that_is_dropped_after_any_number_of_polls_leaves_nothing() {
    everywhere(|provider| async move {
        for crowded in [false, true] {
            for polls in 0.. {
                assert!(polls < 50, "it never completes");
                let name = unique();
                let lock = DistributedRwLock::on(Arc::clone(&provider), name.as_str());
                let plain = match crowded {
                    true => Some(lock.read().await.unwrap()),
                    false => None,
                };
                let made = async {
                    let may = lock.upgradeable_read().await?;
                    let mut upgrade = pin!(may.upgrade());
                    if let Some(plain) = plain {
                        assert!(poll_once(upgrade.as_mut()).await.is_none());
                        drop(plain);
                    }
                    upgrade.await?.release().await
                };
                let completed = crate::dropped_at_every_poll::polled(pin!(made), polls).await;
                let writes = lock.write_for(BOUND).await.expect("the lock is free soon");
                writes.release().await.unwrap();
                drop(lock);
                eventually("the key is forgotten", BOUND, || async {
                    entries_under(&name) == 0
                })
                .await;
                if completed {
                    break;
                }
            }
        }
    });
}

#[test]
fn the_provider_is_asked_while_readers_of_the_process_still_read() {
    run(async {
        let provider = TestProvider::new();
        let (lock, elsewhere) = (
            rw_on(&provider, "asked"),
            rw_on(&provider.another_process(), "asked"),
        );
        let plain = lock.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        assert_eq!(provider.holders("asked"), 2, "a grant of its own");
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        eventually("the server is asked", BOUND, || async {
            provider.calls(Operation::Upgrade) > 0
        })
        .await;
        assert!(elsewhere.try_read().await.unwrap().is_none());
        assert!(elsewhere.try_write().await.unwrap().is_none());
        assert!(elsewhere.try_upgradeable_read().await.unwrap().is_none());
        drop(plain);
        let writes = upgrade.await.unwrap();
        assert_eq!(provider.holders("asked"), 1);
        writes.release().await.unwrap();
        nothing_held(&provider).await;
    });
}

/// A server may let one session have a lock twice, so it is not asked for a second such grant.
#[test]
fn the_provider_is_asked_for_one_such_grant_at_a_time() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "once");
        let may = lock.upgradeable_read().await.unwrap();
        let before = provider.calls(Operation::Acquire);
        let late = lock.upgradeable_read_for(SHORT).await.unwrap_err();
        assert_eq!(late.kind(), LockErrorKind::TimedOut);
        assert_eq!(provider.calls(Operation::Acquire), before);
        drop(may);
        drop(lock.upgradeable_read_for(BOUND).await.unwrap());
        nothing_held(&provider).await;
    });
}

#[test]
fn a_reader_of_another_process_keeps_the_upgrade_waiting() {
    run(async {
        let provider = TestProvider::new();
        let (lock, elsewhere) = (
            rw_on(&provider, "remote"),
            rw_on(&provider.another_process(), "remote"),
        );
        let remote = elsewhere.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        assert!(elsewhere.try_upgradeable_read().await.unwrap().is_none());
        let failed = may.upgrade_for(Duration::ZERO).await.unwrap_err();
        let may = reader(failed, LockErrorKind::Contended);
        let failed = may.upgrade_for(SHORT).await.unwrap_err();
        let may = reader(failed, LockErrorKind::TimedOut);
        drop(elsewhere.read_for(BOUND).await.expect("nothing was left"));
        let mut writing = Box::pin(elsewhere.write());
        assert!(poll_once(writing.as_mut()).await.is_none());
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        drop(remote);
        let writes = upgrade.await.unwrap();
        assert!(poll_once(writing.as_mut()).await.is_none());
        drop(writes);
        drop(writing.await.unwrap());
    });
}

#[test]
fn the_leases_of_both_are_renewed() {
    run(async {
        let provider = TestProvider::new().with_lease(Duration::from_millis(600));
        let lock = rw_on(&provider, "renewed");
        let elsewhere = rw_on(&provider.another_process(), "renewed");
        let remote = elsewhere.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        assert!(!may.is_lost());
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        drop(remote);
        let writes = upgrade.await.expect("the reader was renewed meanwhile");
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        assert!(!writes.is_lost());
        writes.release().await.unwrap();
    });
}

/// A renewal that comes to the server just after the upgrade finds the old owner gone.
#[test]
fn a_renewal_that_finds_the_reader_upgraded_is_no_loss() {
    run(async {
        let lease = Duration::from_millis(300);
        let provider = TestProvider::new().with_lease(lease);
        let late = Late::new(provider.clone());
        let lock = DistributedRwLock::on(late.clone(), "renewal");
        let may = lock.upgradeable_read().await.unwrap();
        // The upgrade is made at once, and answered after a renewal has failed.
        late.answers_after(lease / 2);
        let renewed = provider.calls(Operation::Renew);
        let writes = may.upgrade().await.unwrap();
        assert!(provider.calls(Operation::Renew) > renewed, "it was renewed");
        assert!(!writes.is_lost());
        writes.release().await.unwrap();
    });
}

#[test]
fn a_reader_that_is_lost_does_not_become_the_writer() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "lost");
        let may = lock.upgradeable_read().await.unwrap();
        provider.lose("lost");
        may.lost().await;
        let failed = may.upgrade().await.unwrap_err();
        assert_eq!(failed.kind(), LockErrorKind::Lost);
        assert!(failed.into_guard().is_none());
        // The same while it waits.
        let plain = lock.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        provider.lose("lost");
        let failed = upgrade.await.unwrap_err();
        assert_eq!(failed.kind(), LockErrorKind::Lost);
        assert!(failed.into_guard().is_none());
        assert!(plain.is_lost(), "the server had lost both");
        drop(plain);
        drop(lock.write_for(BOUND).await.unwrap());
        nothing_held(&provider).await;
    });
}

#[test]
fn after_an_error_of_the_provider_it_is_still_a_reader() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "failing");
        let may = lock.upgradeable_read().await.unwrap();
        provider.fail_next(Operation::Upgrade, 1);
        let failed = may.upgrade().await.unwrap_err();
        let may = reader(failed, LockErrorKind::ProviderUnavailable);
        assert!(lock.try_read().await.unwrap().is_some());
        drop(may.upgrade().await.unwrap());
        nothing_held(&provider).await;
    });
}

/// A server that does not answer: the caller has its reader back in time, and the release comes
/// after the answer.
#[test]
fn a_server_that_does_not_answer_keeps_nobody_waiting() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "frozen");
        let may = lock.upgradeable_read().await.unwrap();
        provider.freeze(true);
        let failed = may.upgrade_for(SHORT).await.unwrap_err();
        let may = reader(failed, LockErrorKind::ProviderUnavailable);
        let failed = may.upgrade_for(SHORT).await.unwrap_err();
        let may = reader(failed, LockErrorKind::ProviderUnavailable);
        let mut release = Box::pin(may.release());
        assert!(poll_once(release.as_mut()).await.is_none());
        provider.freeze(false);
        release.await.unwrap();
        assert_eq!(provider.holders("frozen"), 0);
        drop(lock.write_for(BOUND).await.unwrap());
    });
}

/// Whoever tries in a loop must not ask without a pause.
#[test]
fn an_upgrade_waits_until_the_one_before_is_taken_back() {
    run(async {
        let provider = TestProvider::new();
        let lock = rw_on(&provider, "again");
        let elsewhere = rw_on(&provider.another_process(), "again");
        let other = elsewhere.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        provider.freeze(true);
        let failed = may.upgrade_for(SHORT).await.unwrap_err();
        let may = reader(failed, LockErrorKind::ProviderUnavailable);
        let began = Instant::now();
        let failed = may.upgrade_for(SHORT).await.unwrap_err();
        assert!(began.elapsed() >= SHORT, "{:?}", began.elapsed());
        let may = reader(failed, LockErrorKind::ProviderUnavailable);
        assert_eq!(provider.calls(Operation::Upgrade), 1);
        let upgrade = tokio::spawn(may.upgrade());
        provider.freeze(false);
        // Before that, the first one might still become the writer, and nobody would want it.
        eventually("it asks anew", BOUND, || async {
            provider.calls(Operation::Upgrade) > 1
        })
        .await;
        other.release().await.unwrap();
        let writer = upgrade.await.unwrap().unwrap();
        writer.release().await.unwrap();
        nothing_held(&provider).await;
    });
}

/// The answer of the upgrade comes when its caller has the reader back, and the server has no such
/// reader any more.
#[test]
fn a_reader_is_lost_whose_upgrade_the_server_tells_too_late() {
    run(async {
        let provider = TestProvider::new();
        let late = Late::new(provider.clone());
        let lock = DistributedRwLock::on(late.clone(), "late");
        let may = lock.upgradeable_read().await.unwrap();
        late.answers_after(Duration::from_millis(300));
        let failed = may.upgrade_for(SHORT).await.unwrap_err();
        let may = reader(failed, LockErrorKind::ProviderUnavailable);
        // Long before a renewal would find that.
        let lost = tokio::time::timeout(Duration::from_secs(5), may.lost());
        lost.await.expect("the answer tells it");
        assert!(may.is_lost());
        assert_eq!(may.release().await.unwrap_err().kind(), LockErrorKind::Lost);
        nothing_held(&provider).await;
        late.answers_after(Duration::ZERO);
        let may = lock.upgradeable_read_for(BOUND).await.unwrap();
        drop(may.upgrade_for(BOUND).await.unwrap());
        // The same with a future that is dropped.
        late.answers_after(SHORT);
        let may = lock.upgradeable_read_for(BOUND).await.unwrap();
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        drop(upgrade);
        drop(lock.write_for(BOUND).await.expect("it is given back"));
        nothing_held(&provider).await;
    });
}

/// The server has dropped the readers of this process, and their bodies still run.
#[test]
fn an_upgrade_waits_for_bodies_that_have_lost_their_read() {
    run(async {
        let provider = TestProvider::new();
        let late = Late::new(provider.clone());
        let lock = DistributedRwLock::on(late.clone(), "lingering");
        let plain = lock.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        let read = late.reads.lock().unwrap().remove(0);
        read.loss_reporter().report("its session has ended");
        provider.release(&read).await.unwrap();
        plain.lost().await;
        let early = tokio::time::timeout(SHORT, &mut upgrade).await;
        assert!(early.is_err(), "a body still reads");
        assert_eq!(
            provider.holders("lingering"),
            1,
            "the server waits for nobody"
        );
        drop(plain);
        drop(upgrade.await.unwrap());
        nothing_held(&provider).await;
    });
}

/// What nobody polls is not renewed for ever.
#[test]
fn an_upgrade_that_nobody_polls_ends_with_its_lease() {
    run(async {
        let provider = TestProvider::new().with_lease(Duration::from_millis(200));
        let lock = rw_on(&provider, "unpolled");
        let elsewhere = rw_on(&provider.another_process(), "unpolled");
        let remote = elsewhere.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        drop(remote);
        drop(elsewhere.write_for(BOUND).await.expect("it ends"));
        let failed = upgrade.await.unwrap_err();
        assert_eq!(failed.kind(), LockErrorKind::Lost);
        assert!(failed.into_guard().is_none());
        nothing_held(&provider).await;
    });
}

#[test]
fn an_upgraded_writer_is_kept_for_its_min_hold() {
    everywhere(|provider| async move {
        let hold = Duration::from_millis(150);
        let lock = DistributedRwLock::on(provider, unique()).min_hold(hold);
        let may = lock.upgradeable_read().await.unwrap();
        drop(may);
        let may = lock.upgradeable_read_for(hold / 2).await;
        let may = may.expect("a reader is not kept");
        let began = Instant::now();
        drop(may.upgrade().await.unwrap());
        drop(lock.read_for(BOUND).await.unwrap());
        assert!(began.elapsed() >= hold, "{:?}", began.elapsed());
    });
}

/// The provider inside has a queue of its own, where other providers' callers stand.
#[test]
fn a_wrapper_with_queues_of_its_own_upgrades_in_the_queue_inside() {
    run(async {
        let inside = InProcessProvider::new();
        let plain = DistributedRwLock::on(shared(inside.clone()), "inside");
        let lock = DistributedRwLock::on(shared(Apart(inside)), "inside");
        let reads = plain.read().await.unwrap();
        let may = lock.upgradeable_read().await.unwrap();
        assert!(plain.try_upgradeable_read().await.unwrap().is_none());
        let failed = may.upgrade_for(Duration::ZERO).await.unwrap_err();
        let may = reader(failed, LockErrorKind::Contended);
        let failed = may.upgrade_for(SHORT).await.unwrap_err();
        let may = reader(failed, LockErrorKind::TimedOut);
        drop(plain.try_read().await.unwrap().expect("nothing was left"));
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        eventually("the queue inside holds readers back", BOUND, || async {
            plain.try_read().await.unwrap().is_none()
        })
        .await;
        drop(reads);
        let writes = upgrade.await.unwrap();
        assert!(plain.try_read().await.unwrap().is_none());
        drop(writes);
        let may = lock.upgradeable_read().await.unwrap();
        may.release().await.unwrap();
        drop(plain.write_for(BOUND).await.unwrap());
    });
}

#[test]
fn a_file_refuses_it_before_anything_is_queued() {
    run(async {
        let scratch = Scratch::new();
        let lock = DistributedRwLock::on(shared(FileProvider::new(scratch.path())), unique());
        let written = lock.write().await.unwrap();
        let before = keys_in_use();
        let refused = lock.upgradeable_read().await.unwrap_err();
        assert_eq!(refused.kind(), LockErrorKind::Unsupported);
        let said = refused.to_string();
        assert!(said.contains("`file` has no upgradeable reads"), "{said}");
        assert_eq!(keys_in_use(), before);
        drop(written);
    });
}

#[distributed_lock(name = name, mode = "read", provider = provider)]
async fn reading<T>(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    body: impl Future<Output = T>,
) -> Result<T, LockError> {
    Ok(body.await)
}

/// A task that reads through the attribute would wait for itself.
#[test]
fn a_task_that_reads_does_not_wait_for_its_own_read() {
    everywhere(|provider| async move {
        let name = unique();
        let lock = DistributedRwLock::on(Arc::clone(&provider), name.as_str());
        let may = lock.upgradeable_read().await.unwrap();
        let mut begun = Box::pin(may.upgrade_for(BOUND));
        let body = async {
            let asked = lock.upgradeable_read().await.unwrap_err();
            assert_eq!(asked.kind(), LockErrorKind::WouldDeadlock);
            let failed = begun.as_mut().await.unwrap_err();
            reader(failed, LockErrorKind::WouldDeadlock)
        };
        let may = reading(&provider, &name, body).await.unwrap();
        drop(may.upgrade().await.unwrap());
    });
}

/// The reader inside would wait for the upgrade, which waits for the one around it.
#[test]
fn a_nested_read_joins_its_own_grant_while_an_upgrade_waits() {
    everywhere(|provider| async move {
        let name = unique();
        let lock = DistributedRwLock::on(Arc::clone(&provider), name.as_str());
        let may = lock.upgradeable_read().await.unwrap();
        let mut upgrade = Box::pin(may.upgrade());
        let body = async {
            // Outside of the body, which may not wait for it.
            let begun = tokio::spawn(async move {
                assert!(poll_once(upgrade.as_mut()).await.is_none());
                Some(upgrade)
            });
            let upgrade = begun.await.unwrap();
            let inner = reading(&provider, &name, std::future::ready(())).await;
            inner.expect("it joins its own grant");
            upgrade
        };
        let upgrade = reading(&provider, &name, body).await.unwrap();
        drop(upgrade.expect("it waits").await.unwrap());
    });
}
