//! The core of the runtime: gate, background threads, guard, loss, registry, shutdown.

mod background;
mod background_release;
mod by_hand;
mod config;
mod custom_providers;
mod deadlocks;
mod dropped_at_every_poll;
mod forked;
mod gate;
mod groups;
mod hand_over;
mod holders;
mod leases;
mod log;
mod loss;
mod min_hold;
mod nemesis;
mod own_process;
mod permits;
mod process;
mod registering;
mod resting;
mod rw;
mod several;
mod several_model;
mod shared_bodies;
mod shared_leftovers;
mod shared_model;
mod shared_nemesis;
mod sharing;
mod stale_answers;
mod telemetry;
mod timeouts;
mod upgrade;
mod wakers;

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::testing::TestProvider;
use lock_runtime::{DistributedLock, LockProvider};

/// The time that no test here comes near.
const BOUND: Duration = Duration::from_secs(60);

fn run(test: impl Future<Output = ()> + Send + 'static) {
    lock_tests::run(BOUND, test);
}

fn lock_on(provider: &TestProvider, name: &str) -> DistributedLock {
    DistributedLock::on(Arc::new(provider.clone()), name)
}

fn shared(provider: impl LockProvider) -> Arc<dyn LockProvider> {
    Arc::new(provider)
}

/// Waits until the server holds no lock any more.
async fn nothing_held(provider: &TestProvider) {
    lock_tests::eventually("every lock is released", BOUND, || async {
        provider.held() == 0
    })
    .await;
}
