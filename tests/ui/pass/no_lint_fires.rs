//! The expansion is silent under the strictest lints, forbidden ones included.

#![deny(warnings)]
#![forbid(
    future_incompatible,
    let_underscore,
    nonstandard_style,
    unused,
    unsafe_code,
    unreachable_code,
    trivial_casts,
    trivial_numeric_casts,
    unused_qualifications,
    unused_results,
    missing_docs,
    elided_lifetimes_in_paths,
    single_use_lifetimes,
    unit_bindings
)]

use lock_runtime::{LockError, distributed_lock};

#[distributed_lock(
    name = "invoice:{tenant}:{id:04}",
    timeout = "1m30s",
    lease = "30s",
    max_hold = "10m",
    guard = lock
)]
async fn settle(tenant: &str, mut id: u64) -> Result<u64, LockError> {
    id += tenant.len() as u64;
    if lock.is_lost() {
        return Ok(0);
    }
    Ok(id)
}

#[distributed_lock(name = "nightly", on_unavailable = "skip")]
async fn nightly() {}

#[distributed_lock(name = format!("report:{id}"), on_unavailable = |_| None)]
async fn report(id: u64) -> Option<u64> {
    Some(id)
}

fn main() {
    drop((settle("acme", 1), nightly(), report(1)));
}
