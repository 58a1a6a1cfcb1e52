//! Dependencies that are called as the standard library's crates are.

extern crate async_trait as alloc;
extern crate async_trait as core;
extern crate async_trait as std;

use lock_runtime::{LockError, distributed_lock};

#[distributed_lock(
    name = "invoice:{tenant}:{id:04}",
    timeout = "1m30s",
    lease = "30s",
    max_hold = "10m",
    min_hold = "1s",
    provider = "locks",
    guard = lock,
    release = "background"
)]
async fn settle(tenant: &str, id: u64, _rest: String, _: String) -> Result<u64, LockError> {
    Ok(u64::from(lock.is_lost()) + id + tenant.len() as u64)
}

#[distributed_lock(name = String::from("nightly"), on_unavailable = "skip")]
async fn nightly() {}

fn main() {
    drop((settle("acme", 1, String::new(), String::new()), nightly()));
}
