//! What the cases about other kinds of locks than mutexes share.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{DistributedRwLock, DistributedSemaphore};
use lock_tests::any_lock::ModeWord;
use lock_tests::{AnyLock, Rng, Window, Windows, boot_nanos};
use tokio::task::JoinSet;

use super::Shared;
use crate::fixture::Fixture;

impl Fixture {
    pub(crate) fn rw(&self, name: &str) -> DistributedRwLock {
        DistributedRwLock::on(self.provider().clone(), name)
    }

    pub(crate) fn permits(&self, name: &str, permits: u32) -> DistributedSemaphore {
        DistributedSemaphore::on(self.provider().clone(), name, permits)
    }

    /// Returns one lock on two providers, where there can be two.
    pub(crate) async fn two_rw(&self, name: &str) -> (DistributedRwLock, DistributedRwLock) {
        let elsewhere = self.elsewhere().await;
        (self.rw(name), DistributedRwLock::on(elsewhere, name))
    }

    /// Returns one semaphore on two providers, where there can be two.
    pub(crate) async fn two_permits(
        &self,
        name: &str,
        permits: u32,
    ) -> (DistributedSemaphore, DistributedSemaphore) {
        let elsewhere = DistributedSemaphore::on(self.elsewhere().await, name, permits);
        (self.permits(name, permits), elsewhere)
    }

    /// Returns how long a lock may stay taken whose holder is gone: nothing else can free a lease
    /// before it ends.
    pub(crate) fn after_a_death(&self) -> Duration {
        self.provider().capabilities().lease.unwrap_or_default() + self.bound()
    }
}

/// The windows of a test's tasks.
#[derive(Default)]
pub(crate) struct Judged {
    pub(crate) windows: Arc<Windows>,
}

/// Lets so many tasks, on two providers in turn, hold a lock so many times each, as these modes at
/// random.
pub(crate) async fn play(
    fixture: &Shared,
    name: &str,
    modes: &[&str],
    tasks: u64,
    rounds: usize,
    judged: &Judged,
) {
    let elsewhere = fixture.elsewhere().await;
    let modes: Vec<_> = modes.iter().map(|word| ModeWord::parse(word)).collect();
    let mut playing = JoinSet::new();
    for task in 0..tasks {
        let provider = match task % 2 {
            0 => fixture.provider().clone(),
            _ => elsewhere.clone(),
        };
        let (name, modes) = (name.to_owned(), modes.clone());
        let windows = Arc::clone(&judged.windows);
        playing.spawn(async move {
            let mut random = Rng::new(task);
            for _ in 0..rounds {
                let mode = random.one_of(&modes);
                let lock = AnyLock::on(mode, provider.clone(), name.as_str());
                let guard = lock.acquire().await.unwrap();
                let from = boot_nanos();
                match random.below(3) {
                    0 => tokio::task::yield_now().await,
                    _ => tokio::time::sleep(random.millis(0..3)).await,
                }
                windows.record(Window {
                    name: name.clone(),
                    holder: task.to_string(),
                    mode,
                    from,
                    until: boot_nanos(),
                    token: guard.fencing_token().map(|token| token.get()),
                });
                match random.below(2) {
                    0 => drop(guard),
                    _ => guard.release().await.unwrap(),
                }
            }
        });
    }
    playing.join_all().await;
}
