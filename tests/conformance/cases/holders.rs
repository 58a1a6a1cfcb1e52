//! Who holds a lock is told: by `inspect`, and by errors where the answer said it anyway.

use std::time::{Duration, SystemTime};

use lock_runtime::{
    DistributedLock, DistributedRwLock, DistributedSemaphore, LockErrorKind, LockMode, LockState,
};
use lock_tests::eventually;

use super::Shared;

fn modes(state: &LockState) -> Vec<Option<LockMode>> {
    state.holders().iter().map(|holder| holder.mode()).collect()
}

pub(crate) async fn a_holder_of_this_process_is_told(fixture: Shared) {
    let lock = DistributedLock::on(fixture.provider().clone(), "lock");
    let free = lock.inspect().await.expect("the provider tells");
    assert!(free.holders().is_empty(), "{free:?}");
    assert_eq!(free.available(), None);

    let guard = lock.acquire_for(fixture.bound()).await.expect("free");
    let state = lock.inspect().await.expect("the provider tells");
    let [holder] = state.holders() else {
        panic!("one holder: {state:?}");
    };
    assert!(holder.is_this_process(), "{holder:?}");
    assert!(
        holder
            .label()
            .ends_with(&format!("(pid {})", std::process::id())),
        "{holder}"
    );
    assert_eq!(holder.mode(), Some(LockMode::Exclusive));
    if fixture.provider().capabilities().lease.is_some() {
        let since = holder.since().expect("this process knows since when");
        assert!(since.elapsed().expect("in the past") < Duration::from_secs(60));
        assert!(since <= SystemTime::now());
    }
    let refused = lock.acquire_for(Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::Contended);
    let told = refused.holder().expect("this process knows who it is");
    assert!(told.is_this_process());
    let sentence = format!("lock `lock` is held by {}", told.label());
    assert!(refused.to_string().starts_with(&sentence), "{refused}");

    let late = lock
        .acquire_for(Duration::from_millis(20))
        .await
        .unwrap_err();
    assert_eq!(late.kind(), LockErrorKind::TimedOut);
    assert!(late.holder().is_some_and(|holder| holder.is_this_process()));
    guard.release().await.expect("held");
    let is_free = async || {
        let state = lock.inspect().await.expect("the provider tells");
        state.holders().is_empty()
    };
    eventually("nobody holds it", fixture.bound(), is_free).await;
}

pub(crate) async fn those_who_wait_are_counted(fixture: Shared) {
    let lock = DistributedRwLock::on(fixture.provider().clone(), "lock");
    let guard = lock.write_for(fixture.bound()).await.expect("free");
    let elsewhere = DistributedRwLock::on(fixture.elsewhere().await, "lock");
    let state = lock.inspect().await.expect("the provider tells");
    let Some(before) = state.waiters() else {
        // Those who wait for a file leave no trace.
        assert_eq!(fixture.provider().capabilities().provider, "file");
        return;
    };
    assert_eq!(before, 0);
    let waiting = tokio::spawn(async move { elsewhere.write().await });
    let is_counted = async || {
        let state = lock.inspect().await.expect("the provider tells");
        state.waiters() == Some(1)
    };
    eventually("one waits", fixture.bound(), is_counted).await;
    drop(guard);
    drop(waiting.await.expect("no panic").expect("nobody writes"));
}

pub(crate) async fn readers_and_the_writer_are_told(fixture: Shared) {
    let lock = DistributedRwLock::on(fixture.provider().clone(), "lock");
    let free = lock.inspect().await.expect("the provider tells");
    assert!(free.holders().is_empty(), "{free:?}");
    let read = lock.read_for(fixture.bound()).await.expect("free");
    let state = lock.inspect().await.expect("the provider tells");
    assert_eq!(modes(&state), [Some(LockMode::Read)], "{state:?}");
    assert!(state.holders()[0].is_this_process());
    let refused = lock.write_for(Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::Contended);
    let holder = refused.holder().expect("this process reads");
    assert!(holder.is_this_process());
    read.release().await.expect("held");

    let write = lock.write_for(fixture.bound()).await.expect("free");
    let state = lock.inspect().await.expect("the provider tells");
    assert_eq!(modes(&state), [Some(LockMode::Write)], "{state:?}");
    write.release().await.expect("held");
}

pub(crate) async fn permits_are_counted(fixture: Shared) {
    let lock = DistributedSemaphore::on(fixture.provider().clone(), "lock", 5);
    let free = lock.inspect().await.expect("the provider tells");
    assert!(free.holders().is_empty(), "{free:?}");
    assert_eq!(free.available(), Some(5));
    let two = lock
        .acquire_many_for(2, fixture.bound())
        .await
        .expect("free");
    let state = lock.inspect().await.expect("the provider tells");
    assert_eq!(state.available(), Some(3), "{state:?}");
    let taken = state.holders().iter().map(|holder| {
        assert!(holder.is_this_process(), "{holder:?}");
        holder.permits().expect("their number is known")
    });
    assert_eq!(taken.sum::<u32>(), 2);
    two.release().await.expect("held");
}

pub(crate) async fn a_holder_in_another_process_is_told(fixture: Shared) {
    let lock = DistributedLock::on(fixture.provider().clone(), "lock");
    let mut other = fixture.probe("lock");
    other.ask("acquire", "acquired", fixture.bound()).await;
    let state = lock.inspect().await.expect("the provider tells");
    let [holder] = state.holders() else {
        panic!("one holder: {state:?}");
    };
    assert!(!holder.is_this_process(), "{holder:?}");
    let end = format!("(pid {})", other.id());
    assert!(holder.label().ends_with(&end), "{holder}");
    // An answer may say it anyway. Then it is the same one.
    let refused = lock.acquire_for(Duration::ZERO).await.unwrap_err();
    let late = lock
        .acquire_for(Duration::from_millis(200))
        .await
        .unwrap_err();
    for error in [&refused, &late] {
        if let Some(told) = error.holder() {
            assert_eq!(told.label(), holder.label());
            assert!(error.to_string().contains(holder.label()), "{error}");
        }
    }
    other.ask("drop", "dropped", fixture.bound()).await;
}
