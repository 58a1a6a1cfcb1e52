//! A provider that has nothing but mutexes says so at once.

use std::time::{Duration, Instant};

use lock_runtime::LockErrorKind;

use super::Shared;

pub(crate) async fn other_kinds_are_unsupported_at_once(fixture: Shared) {
    let provider = fixture.provider().capabilities().provider;
    let (rw, permits) = (fixture.rw("lock"), fixture.permits("permits", 3));
    let asked = Instant::now();
    for (error, what) in [
        (rw.read().await.unwrap_err(), "reader–writer locks"),
        (rw.write().await.unwrap_err(), "reader–writer locks"),
        (rw.try_read().await.unwrap_err(), "reader–writer locks"),
        (rw.try_write().await.unwrap_err(), "reader–writer locks"),
        (
            rw.read_for(Duration::MAX).await.unwrap_err(),
            "reader–writer locks",
        ),
        (permits.acquire().await.unwrap_err(), "semaphores"),
        (permits.try_acquire().await.unwrap_err(), "semaphores"),
        (permits.acquire_many(2).await.unwrap_err(), "semaphores"),
    ] {
        assert_eq!(error.kind(), LockErrorKind::Unsupported, "{error}");
        let expected = format!("`{provider}` has no {what}");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    // No server was asked, nor waited for.
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    drop((rw, permits));
    // And nothing is queued: the names are free for mutexes.
    for name in ["lock", "permits"] {
        let guard = fixture.lock(name).try_acquire().await.unwrap();
        guard.expect("it is free").release().await.unwrap();
    }
}
