//! Leases: renewed while the guard lives and its process can, lost within their bound otherwise.

use std::time::Duration;

use lock_tests::{FencedRegister, boot_nanos};

use super::Shared;

pub(crate) async fn renewed_for_many_leases(fixture: Shared) {
    let lease = fixture.short_lease();
    let lock = fixture.lock("lock").lease(lease);
    let guard = lock.acquire().await.unwrap();
    assert!(
        tokio::time::timeout(4 * lease, guard.lost()).await.is_err(),
        "no loss"
    );
    fixture.assert_held(&lock).await;
    guard.release().await.unwrap();
}

/// Both threads of the caller's runtime are blocked for three leases.
pub(crate) async fn busy_runtime_keeps_the_lock(fixture: Shared) {
    let lease = fixture.short_lease();
    let lock = fixture.lock("lock").lease(lease);
    let guard = lock.acquire().await.unwrap();
    let busy: Vec<_> = (0..2)
        .map(|_| tokio::spawn(async move { std::thread::sleep(3 * lease) }))
        .collect();
    std::thread::sleep(3 * lease);
    assert!(!guard.is_lost());
    for task in busy {
        task.await.unwrap();
    }
    guard.release().await.expect("held to the end");
}

/// A holder that is stopped has lost the lock by the time another one gets it, knows it at once
/// when it goes on, and what it writes then is refused.
pub(crate) async fn frozen_holder_is_lost(fixture: Shared) {
    let default = fixture
        .provider()
        .capabilities()
        .lease
        .expect("a provider with leases");
    let lock = fixture.lock("lock");
    let register = FencedRegister::default();
    let mut other = fixture.probe("lock");
    let answer = other.ask("acquire", "acquired", fixture.bound()).await;
    let stale: u64 = answer[2].parse().unwrap();
    other.ask("is-lost", "valid", fixture.bound()).await;
    other.freeze();
    let stopped = boot_nanos();
    let guard = lock
        .acquire_for(default + fixture.bound())
        .await
        .expect("free after its lease");
    let waited = Duration::from_nanos(boot_nanos() - stopped);
    assert!(
        waited > default / 2,
        "renewed up to the stop, free after {waited:?}"
    );
    let fresh = guard.fencing_token().map(|token| token.get());
    other.thaw();
    other.ask("is-lost", "lost", fixture.bound()).await;
    if let Some(fresh) = fresh {
        assert!(register.write("lock", fresh));
        assert!(!register.write("lock", stale), "the stale write is refused");
        assert_eq!(register.refused(), 1);
    }
    other.ask("release", "releasing", fixture.bound()).await;
    let answer = other.expect("failed", fixture.bound()).await;
    assert_eq!(answer[1], "Lost");
    assert!(!guard.is_lost(), "its release touched nobody else's lock");
    fixture.assert_held(&lock).await;
    guard.release().await.unwrap();
}

pub(crate) async fn killed_holder_costs_a_lease(fixture: Shared) {
    let default = fixture
        .provider()
        .capabilities()
        .lease
        .expect("a provider with leases");
    let lock = fixture.lock("lock");
    let mut other = fixture.probe("lock");
    other.ask("acquire", "acquired", fixture.bound()).await;
    other.kill();
    let guard = lock
        .acquire_for(default + fixture.bound())
        .await
        .expect("free after its lease");
    guard.release().await.unwrap();
}
