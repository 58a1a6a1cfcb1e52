//! A guard that is not lost does not say so.

use std::time::Duration;

use lock_tests::poll_once;

use super::Shared;

const A_WHILE: Duration = Duration::from_millis(300);

pub(crate) async fn no_loss_while_held(fixture: Shared) {
    let guard = fixture.lock("lock").acquire().await.unwrap();
    assert!(
        tokio::time::timeout(A_WHILE, guard.lost()).await.is_err(),
        "no loss"
    );
    assert!(!guard.is_lost());
    guard.release().await.unwrap();
}

pub(crate) async fn no_loss_on_release(fixture: Shared) {
    let lock = fixture.lock("lock");
    for dropped in [false, true] {
        let guard = lock.acquire().await.unwrap();
        let mut lost = Box::pin(guard.lost());
        assert!(poll_once(lost.as_mut()).await.is_none(), "no loss");
        match dropped {
            true => drop(guard),
            false => guard.release().await.unwrap(),
        }
        fixture.assert_free(&lock).await;
        assert!(
            tokio::time::timeout(A_WHILE, lost).await.is_err(),
            "a release is no loss"
        );
    }
}

/// The release of one grant does not end the next one.
pub(crate) async fn late_release_is_still_safe(fixture: Shared) {
    let lock = fixture.lock("lock");
    let first = lock.acquire().await.unwrap();
    // Dropped at once: the release goes on in the background.
    drop(first.release());
    let second = fixture.take(&lock).await;
    assert!(
        tokio::time::timeout(A_WHILE, second.lost()).await.is_err(),
        "no loss"
    );
    fixture.assert_held(&lock).await;
    second.release().await.unwrap();
}
