//! Locks without the attribute: acquire, watch for loss, fence what is written, release.
//!
//! A holder that was frozen for too long does not know that its lock has gone to somebody else.
//! Its guard says so as soon as it runs again, and what it wrote too late is refused by a store
//! that remembers the highest fencing token it has seen.
//!
//! It needs no server: the locks are on a test provider, which loses them on command.
//!
//! ```text
//! cargo run --example manual_guard
//! ```

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_runtime::testing::TestProvider;
use lock_runtime::{DistributedLock, FencingToken, LockErrorKind, LockProvider};
use tokio::time::sleep;

/// Stands for a database, which keeps the token beside the value:
/// `UPDATE … SET value = $1, token = $2 WHERE id = $3 AND token <= $2`.
#[derive(Default)]
struct FencedStore(Mutex<Option<(FencingToken, String)>>);

#[derive(Debug, PartialEq)]
struct Stale {
    seen: FencingToken,
}

impl FencedStore {
    fn write(&self, token: FencingToken, value: &str) -> Result<(), Stale> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *stored {
            Some((seen, _)) if token < seen => Err(Stale { seen }),
            _ => {
                *stored = Some((token, value.to_owned()));
                Ok(())
            }
        }
    }

    fn value(&self) -> Option<String> {
        let stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stored.as_ref().map(|(_, value)| value.clone())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Two services on one server.
    let server = TestProvider::new();
    let ours: Arc<dyn LockProvider> = Arc::new(server.clone());
    let theirs: Arc<dyn LockProvider> = Arc::new(server.clone());
    let lock = DistributedLock::on(ours, "leader").lease(Duration::from_secs(10));
    let their_lock = DistributedLock::on(theirs, "leader");
    let store = FencedStore::default();

    // `None` is contention; every other failure is an `Err`.
    let guard = lock.try_acquire().await?.ok_or("the lock should be free")?;
    let our_token = guard.fencing_token().ok_or("there should be a token")?;
    println!("we hold `{}` with token {our_token}", guard.name());
    store
        .write(our_token, "ours")
        .map_err(|_| "we are not stale")?;

    let they = their_lock
        .try_acquire_for(Duration::from_millis(50))
        .await?;
    println!("they wait for 50 ms and get {they:?}");
    assert!(they.is_none());
    let refused = their_lock.acquire_for(Duration::from_millis(50)).await;
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::TimedOut);

    // Long work goes on only while the lock is held.
    let outcome = tokio::select! {
        () = long_work() => "finished",
        () = guard.lost() => "stopped, since the lock is lost",
        () = lose_soon(&server) => unreachable!("it never ends"),
    };
    println!("our long work was {outcome}");
    assert!(guard.is_lost());

    let their_guard = their_lock.acquire().await?;
    let their_token = their_guard
        .fencing_token()
        .ok_or("there should be a token")?;
    println!("they hold it with token {their_token}");
    assert!(their_token > our_token);
    store
        .write(their_token, "theirs")
        .map_err(|_| "they are not stale")?;

    // Had we been frozen just before this line, `lost()` would have come too late. The token does
    // not.
    let late = store.write(our_token, "ours, too late");
    println!("our late write: {late:?}");
    assert_eq!(late, Err(Stale { seen: their_token }));
    assert_eq!(store.value().as_deref(), Some("theirs"));

    // A release tells whether the lock was held until now. Dropping the guard would release it
    // as well, in the background.
    let ended = guard.release().await;
    println!(
        "our release: {}",
        ended
            .as_ref()
            .map_or_else(ToString::to_string, |()| "fine".to_owned())
    );
    assert_eq!(ended.unwrap_err().kind(), LockErrorKind::Lost);
    their_guard.release().await?;
    println!("their release: fine");
    Ok(())
}

async fn long_work() {
    sleep(Duration::from_secs(60)).await;
}

/// The server loses its mind after a while.
async fn lose_soon(server: &TestProvider) {
    sleep(Duration::from_millis(50)).await;
    server.lose("leader");
    std::future::pending().await
}
