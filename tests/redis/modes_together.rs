//! Calls of all modes that become due in one moment: each has the outcome that it would have alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{
    DistributedRwLock, DistributedSemaphore, LockError, LockErrorKind, LockGuard, LockMode,
    LockProvider, RedisProvider, RwLockReadGuard, RwLockWriteGuard, SemaphorePermit,
};
use lock_tests::eventually;
use lock_tests::proxy::Flow;

use crate::common::{BOUND, enter, lock, with_server};
use crate::together::{Together, ended, long, names};

enum Guard {
    Mutex(LockGuard),
    Read(RwLockReadGuard),
    Write(RwLockWriteGuard),
    Permits(SemaphorePermit),
}

impl Guard {
    async fn release(self) -> Result<(), LockError> {
        match self {
            Self::Mutex(guard) => guard.release().await,
            Self::Read(guard) => guard.release().await,
            Self::Write(guard) => guard.release().await,
            Self::Permits(guard) => guard.release().await,
        }
    }
}

fn on(provider: &Arc<RedisProvider>) -> Arc<dyn LockProvider> {
    Arc::clone(provider) as _
}

async fn take(
    provider: Arc<RedisProvider>,
    number: usize,
    name: String,
) -> Result<Guard, LockError> {
    let name = name.as_str();
    let rw = DistributedRwLock::on(on(&provider), name);
    let permits = DistributedSemaphore::on(on(&provider), name, 3);
    Ok(match number % 5 {
        0 => Guard::Mutex(lock(&provider, name).acquire_for(BOUND).await?),
        1 => Guard::Read(rw.read_for(BOUND).await?),
        2 => Guard::Write(rw.write_for(BOUND).await?),
        3 => Guard::Permits(permits.acquire_many_for(2, BOUND).await?),
        // Held by another process.
        _ => Guard::Write(rw.write_for(Duration::from_millis(300)).await?),
    })
}

#[test]
fn each_call_of_a_mixed_group_has_its_own_outcome() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let elsewhere = server.provider_with_long_lease().await;
        let names = names(60);
        let mut theirs = Vec::new();
        for name in names.iter().skip(4).step_by(5) {
            theirs.push(enter(&elsewhere, name, LockMode::Read).await);
        }
        for _ in 0..3 {
            let provider = &together.provider;
            let calls = names.iter().enumerate();
            let calls = calls.map(|(number, name)| take(provider.clone(), number, name.clone()));
            let begun = together.begin(calls.collect()).await;
            together.proxy.heal();
            let mut granted = Vec::new();
            for (number, guard) in ended(begun).await.into_iter().enumerate() {
                match guard {
                    Ok(guard) => {
                        assert_ne!(number % 5, 4, "{number}");
                        granted.push(guard);
                    }
                    Err(error) => {
                        assert_eq!(number % 5, 4, "{number}: {error}");
                        assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
                    }
                }
            }
            let keys: Vec<String> = server.raw.ask("KEYS *").await;
            // A mutex, readers and their ends, a writer, permits; a reader elsewhere, and its end.
            assert_eq!(keys.len(), 1 + 12 * (1 + 2 + 1 + 1 + 2), "{keys:?}");
            let releases = granted.into_iter().map(Guard::release).collect();
            let begun = together.begin(releases).await;
            together.proxy.heal();
            for released in ended(begun).await {
                released.unwrap();
            }
            let keys: Vec<String> = server.raw.ask("KEYS *").await;
            assert_eq!(keys.len(), 1 + 12 * 2, "{keys:?}");
        }
        for grant in &theirs {
            elsewhere.release(grant).await.unwrap();
        }
        server.raw.until_nothing_is_left().await;
    });
}

/// Answers are held back, so that whatever happens needs none.
#[test]
fn a_release_in_the_background_and_what_comes_after_it_need_no_answer() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let rw = DistributedRwLock::on(on(&together.provider), "order").release_in_background();
        let permits =
            DistributedSemaphore::on(on(&together.provider), "permits", 1).release_in_background();
        rw.write().await.unwrap().release().await.unwrap();
        permits.acquire().await.unwrap().release().await.unwrap();
        let write = rw.write().await.unwrap();
        let permit = permits.acquire().await.unwrap();
        together.proxy.set(|fault| fault.to_client = Flow::Hold);
        let start = Instant::now();
        write.release().await.unwrap();
        permit.release().await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
        let again = tokio::spawn(async move {
            let read = rw.try_read().await.unwrap().expect("free for this process");
            let permit = permits.try_acquire().await.unwrap();
            (read, permit.expect("free for this process"))
        });
        eventually("it is read", BOUND, || async {
            server.raw.count("SCARD order.readers").await == 1
        })
        .await;
        together.proxy.heal();
        let (read, permit) = again.await.unwrap();
        read.release().await.unwrap();
        permit.release().await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}
