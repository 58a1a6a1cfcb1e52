//! Leases are renewed while the guard lives, whatever the caller's runtime does.

use lock_runtime::{AcquireRequest, Timestamp};

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

/// By default a provider can renew no lease, and every guard is lost at the end of its first.
pub(crate) async fn leases_can_be_renewed(fixture: Shared) {
    let provider = fixture.provider();
    let (request, _interest) =
        AcquireRequest::new("renewed", fixture.short_lease(), false).unwrap();
    let request = request.with_mode(fixture.mode());
    let grant = provider.acquire(&request).await.unwrap();
    let renewed = provider.renew(&grant).await.expect("the lease is renewed");
    assert!(
        renewed <= Timestamp::now(),
        "it counts from before the request"
    );
    provider.release(&grant).await.unwrap();
}
