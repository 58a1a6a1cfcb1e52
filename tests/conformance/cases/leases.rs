//! Leases are renewed while the guard lives, whatever the caller's runtime does.

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
