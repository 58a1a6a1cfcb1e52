//! Several locks that other processes hold or wait for, and what the ends of these leave.

use lock_runtime::{DistributedLock, DistributedMultiLock};
use lock_tests::eventually;

use super::Shared;
use crate::fixture::Fixture;

fn lock(fixture: &Fixture, name: &str) -> DistributedLock {
    DistributedLock::on(fixture.provider().clone(), name)
}

pub(crate) async fn a_killed_holder_of_several_costs_a_lease(fixture: Shared) {
    let mut killed = fixture.plain_probe("lock");
    killed
        .ask("several c,a,b", "acquired", fixture.bound())
        .await;
    for name in ["a", "b", "c"] {
        let refused = lock(&fixture, name).try_acquire().await.unwrap();
        assert!(refused.is_none(), "{name} is held");
    }
    killed.kill();
    let several = DistributedMultiLock::on(fixture.provider().clone(), ["b", "c", "a"]);
    let several = several.acquire_for(fixture.after_a_death()).await;
    several.expect("all are free").release().await.unwrap();
}

/// It has the first, waits for the second, and is killed.
pub(crate) async fn a_killed_waiter_for_several_leaves_nothing(fixture: Shared) {
    let second = lock(&fixture, "b").acquire().await.unwrap();
    let mut killed = fixture.plain_probe("lock");
    killed.tell("several a,b,c");
    let first = lock(&fixture, "a");
    eventually("it has the first", fixture.bound(), async || {
        first.try_acquire().await.unwrap().is_none()
    })
    .await;
    killed.kill();
    let first = first.acquire_for(fixture.after_a_death()).await;
    second.release().await.unwrap();
    let after = fixture.after_a_death();
    for name in ["b", "c"] {
        let free = lock(&fixture, name).acquire_for(after).await;
        free.expect("it is free").release().await.unwrap();
    }
    first.expect("it is free").release().await.unwrap();
}

/// A holder that is stopped has lost them all by the time another one gets them.
#[cfg(any(feature = "postgres", feature = "redis", feature = "zookeeper"))]
pub(crate) async fn a_frozen_holder_of_several_is_lost(fixture: Shared) {
    let mut other = fixture.plain_probe("lock");
    other.ask("several a,b", "acquired", fixture.bound()).await;
    other.ask("several-lost", "valid", fixture.bound()).await;
    other.freeze();
    let several = DistributedMultiLock::on(fixture.provider().clone(), ["a", "b"]);
    let several = several.acquire_for(fixture.after_a_death()).await;
    let several = several.expect("free after its lease");
    other.thaw();
    other.ask("several-lost", "lost", fixture.bound()).await;
    several.release().await.unwrap();
}
