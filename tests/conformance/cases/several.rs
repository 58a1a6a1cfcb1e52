//! Several locks: all or none, in one order, whoever else takes some of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, DistributedMultiLock, LockErrorKind, LockProvider};
use lock_tests::{Rng, poll_once};
use tokio::task::JoinSet;

use super::Shared;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// The length of the storm; `LOCK_TESTS_STORM` sets another one, in seconds.
const STORM: Duration = Duration::from_millis(1_500);

async fn are_free(provider: &Arc<dyn LockProvider>, names: &[&str], bound: Duration) {
    for name in names {
        let lock = DistributedLock::on(provider.clone(), *name);
        let free = lock.acquire_for(bound).await;
        let free = free.unwrap_or_else(|error| panic!("{name} is not free: {error}"));
        free.release().await.expect("held");
    }
}

pub(crate) async fn all_or_none_are_held(fixture: Shared) {
    let elsewhere = fixture.elsewhere().await;
    let locks = DistributedMultiLock::on(fixture.provider().clone(), ["c", "a", "b", "a"]);
    let guard = locks.acquire_for(fixture.bound()).await.expect("free");
    assert!(guard.names().eq(NAMES), "{guard:?}");
    if fixture.has_tokens() {
        assert_eq!(guard.tokens().count(), 3);
    }
    for name in NAMES {
        let other = DistributedLock::on(elsewhere.clone(), name);
        let refused = other.try_acquire().await.expect("the provider answers");
        assert!(refused.is_none(), "{name} is held");
    }
    guard.release().await.expect("held");
    are_free(&elsewhere, &NAMES, fixture.bound()).await;

    // The one that is held is named, and the others are given back.
    let other = DistributedLock::on(elsewhere.clone(), "b");
    let held = other.acquire_for(fixture.bound()).await.expect("free");
    let refused = locks.acquire_for(Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::Contended, "{refused}");
    assert_eq!(refused.name().map(|name| name.as_str()), Some("b"));
    let asked = Instant::now();
    let late = locks
        .acquire_for(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert_eq!(late.kind(), LockErrorKind::TimedOut, "{late}");
    assert_eq!(late.name().map(|name| name.as_str()), Some("b"));
    assert!(asked.elapsed() >= Duration::from_millis(300));
    are_free(&elsewhere, &["a", "c"], fixture.bound()).await;
    held.release().await.expect("held");
    are_free(&elsewhere, &NAMES, fixture.bound()).await;
}

pub(crate) async fn several_dropped_at_every_poll(fixture: Shared) {
    let elsewhere = fixture.elsewhere().await;
    for held in NAMES {
        for polls in [0, 1, 2, 3, 5, 8, 13] {
            let other = DistributedLock::on(elsewhere.clone(), held);
            let mut other = Some(other.acquire_for(fixture.bound()).await.expect("free"));
            let locks = DistributedMultiLock::on(fixture.provider().clone(), NAMES);
            let mut acquiring = Box::pin(locks.acquire());
            for poll in 0..polls {
                if poll == polls / 2 {
                    drop(other.take());
                }
                if poll_once(acquiring.as_mut()).await.is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop((acquiring, other));
            are_free(&elsewhere, &NAMES, fixture.bound()).await;
        }
    }
}

/// Two processes take pairs of six names at random. Nobody waits for ever, and nobody is inside
/// with another one.
pub(crate) async fn several_never_wait_in_a_circle(fixture: Shared) {
    let storm = std::env::var("LOCK_TESTS_STORM").ok().map(|seconds| {
        Duration::from_secs(
            seconds
                .parse()
                .expect("LOCK_TESTS_STORM is a number of seconds"),
        )
    });
    let ends = Instant::now() + storm.unwrap_or(STORM);
    let inside: Arc<[AtomicUsize; 6]> = Arc::default();
    let mut tasks = JoinSet::new();
    for seed in 0..6 {
        let provider = match seed % 2 {
            0 => fixture.provider().clone(),
            _ => fixture.elsewhere().await,
        };
        let (inside, bound) = (Arc::clone(&inside), 3 * fixture.bound());
        tasks.spawn(async move {
            let mut rng = Rng::new(seed);
            let mut rounds = 0;
            while Instant::now() < ends {
                let pick = |rng: &mut Rng| rng.within(0..6) as usize;
                let pair = [pick(&mut rng), pick(&mut rng)];
                let names = pair.map(|index| format!("name-{index}"));
                let locks = DistributedMultiLock::on(provider.clone(), names);
                let guard = locks.acquire_for(bound).await;
                let guard = guard.unwrap_or_else(|error| panic!("round {rounds}: {error}"));
                let mut once = pair.to_vec();
                once.sort_unstable();
                once.dedup();
                for index in &once {
                    assert_eq!(inside[*index].fetch_add(1, Ordering::SeqCst), 0, "{index}");
                }
                tokio::task::yield_now().await;
                for index in &once {
                    inside[*index].fetch_sub(1, Ordering::SeqCst);
                }
                guard.release().await.expect("held");
                rounds += 1;
            }
            rounds
        });
    }
    let rounds = tasks.join_all().await;
    assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
}
