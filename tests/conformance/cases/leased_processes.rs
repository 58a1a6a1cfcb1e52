//! A process that cannot renew loses its lock within a lease, and knows it.

use std::time::Duration;

use lock_tests::{FencedRegister, boot_nanos};

use super::Shared;

/// A holder that is stopped has lost the lock by the time another one gets it. It knows that at
/// once when it goes on, and what it writes then is refused.
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
