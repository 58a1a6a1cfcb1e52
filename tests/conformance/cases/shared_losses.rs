//! A lock that is lost is lost for all who share it, and soon taken by others.

use std::time::{Duration, Instant};

use lock_runtime::{DistributedSemaphore, LockErrorKind};
use tokio::task::JoinSet;

use super::Shared;

/// All of them hear of it within this.
const TOGETHER: Duration = Duration::from_millis(50);

pub(crate) async fn a_loss_reaches_every_reader(fixture: Shared) {
    const READERS: usize = 20;
    let bound = fixture.after_a_death();
    let mut spreads = Vec::new();
    for round in 0..4 {
        let name = format!("lock-{round}");
        let (here, there) = fixture.two_rw(&name).await;
        let mut hearing = JoinSet::new();
        let mut guards = Vec::new();
        for _ in 0..READERS {
            let guard = here.read().await.unwrap();
            let lost = guard.lost();
            hearing.spawn(async move {
                lost.await;
                Instant::now()
            });
            guards.push(guard);
        }
        let other = fixture.rw("other").read().await.unwrap();
        fixture.lose(&name).await;
        let heard = tokio::time::timeout(bound, hearing.join_all()).await;
        let heard = heard.expect("every reader is told");
        let (first, last) = (heard.iter().min().unwrap(), heard.iter().max().unwrap());
        spreads.push(*last - *first);
        assert!(guards.iter().all(|guard| guard.is_lost()));
        for guard in guards {
            let error = guard.release().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        }
        for lock in [&here, &there] {
            let writer = lock.write_for(bound).await;
            writer.expect("nobody reads").release().await.unwrap();
        }
        assert!(!other.is_lost(), "nobody touched that one's lock");
    }
    // The machine may be busy, but not each time.
    let best = spreads.iter().min().unwrap();
    assert!(*best < TOGETHER, "{spreads:?}");
}

/// Several permits of one grant are lost together; those of others by what became of theirs.
pub(crate) async fn a_loss_of_permits_is_told(fixture: Shared) {
    let bound = fixture.after_a_death();
    let (here, there) = fixture.two_permits("lock", 5).await;
    let three = here.acquire_many(3).await.unwrap();
    let other = DistributedSemaphore::on(fixture.provider().clone(), "other", 5);
    let other = other.acquire_many(3).await.unwrap();
    fixture.lose("lock").await;
    let told = tokio::time::timeout(bound, three.lost()).await;
    assert!(told.is_ok(), "the holder is told");
    assert!(three.is_lost());
    let error = three.release().await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
    let five = there.acquire_many_for(5, bound).await;
    five.expect("nobody has any").release().await.unwrap();
    assert!(!other.is_lost(), "nobody touched those");
}
