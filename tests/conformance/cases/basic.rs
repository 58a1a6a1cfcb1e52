//! A lock is taken and given back, and nobody else has it meanwhile.

use super::Shared;

pub(crate) async fn acquire_and_release(fixture: Shared) {
    let lock = fixture.lock("lock");
    let guard = lock.acquire().await.unwrap();
    fixture.assert_held(&lock).await;
    guard.release().await.unwrap();
    // Free as soon as the release has answered, not some time later.
    let again = lock
        .try_acquire()
        .await
        .unwrap()
        .expect("free after the release");
    again.release().await.unwrap();
}

pub(crate) async fn reacquire(fixture: Shared) {
    let lock = fixture.lock("lock");
    for round in 0..100 {
        let guard = lock.try_acquire().await.unwrap();
        let guard = guard.unwrap_or_else(|| panic!("free in round {round}"));
        guard.release().await.unwrap();
    }
}

pub(crate) async fn dropped_guard_is_released(fixture: Shared) {
    let lock = fixture.lock("lock");
    drop(lock.acquire().await.unwrap());
    fixture.assert_free(&lock).await;
}

pub(crate) async fn guard_knows_its_name(fixture: Shared) {
    let guard = fixture.lock("The Name").acquire().await.unwrap();
    assert_eq!(guard.name().as_str(), "The Name");
    assert!(!guard.is_lost());
    assert_eq!(guard.fencing_token().is_some(), fixture.has_tokens());
}

pub(crate) async fn two_names_do_not_clash(fixture: Shared) {
    let one = fixture.lock("one").acquire().await.unwrap();
    let other = fixture
        .lock("other")
        .try_acquire()
        .await
        .unwrap()
        .expect("another lock");
    one.release().await.unwrap();
    fixture.assert_held(&fixture.lock("other")).await;
    other.release().await.unwrap();
}

/// Two lock values that were made apart exclude each other, on two connections where there can be
/// two.
pub(crate) async fn two_locks_of_one_name_exclude(fixture: Shared) {
    let first = fixture.lock("lock");
    let second = match fixture.second_provider().await {
        Some(provider) => fixture.lock_on(provider, "lock"),
        None => fixture.lock("lock"),
    };
    for (held, free) in [(&first, &second), (&second, &first)] {
        let guard = held.acquire().await.unwrap();
        fixture.assert_held(free).await;
        guard.release().await.unwrap();
        fixture.assert_free(free).await;
    }
}
