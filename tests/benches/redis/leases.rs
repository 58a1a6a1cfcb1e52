//! Measures what many leases cost a process that keeps them for a while.

use std::time::{Duration, Instant};

use async_redis_lock::Options;
use distributed_lock_core::traits::{DistributedLock as _, LockHandle, LockProvider as _};
use distributed_lock_redis::RedisLockHandle;
use lock_runtime::{DistributedLock, LockGuard};
use rustix::time::{ClockId, clock_gettime};

use crate::locks::{Clients, Kind};

/// The number of leases that are acquired at a time.
const TOGETHER: u64 = 100;

/// The cost of the leases: how many of them were lost, the per cent of one core used, and the bytes
/// of memory for each.
pub(crate) struct Cost {
    pub(crate) lost: f64,
    pub(crate) cpu: f64,
    pub(crate) bytes: f64,
}

/// Holds so many leases for three lease times.
pub(crate) async fn hold(clients: &Clients, kind: Kind, count: u64, lease: Duration) -> Cost {
    match kind {
        Kind::Prepared => {
            let provider = clients.ours().await;
            let acquire = async |number| {
                let lock = DistributedLock::on(provider.clone(), format!("lease:{number}"));
                let acquiring = lock.lease(lease);
                acquiring.acquire().await.expect("it is free")
            };
            hold_all(count, lease, acquire, LockGuard::is_lost).await
        }
        Kind::AsyncRedisLock => {
            let locker = clients.async_redis_lock().await;
            let options = Options::new().ttl(lease).extend(lease / 3);
            let acquire = async |number| {
                let name = format!("async-redis-lock:{number}");
                let lock = locker.acquire_with_options(&options, name).await;
                lock.expect("it is free")
            };
            hold_all(count, lease, acquire, async_redis_lock::Lock::is_lost).await
        }
        Kind::DistributedLock => {
            let provider = clients.distributed_lock(lease).await;
            let acquire = async |number: u64| {
                let lock = provider.create_lock(&format!("lease:{number}"));
                let handle = lock.try_acquire().await.expect("the server answers");
                handle.expect("it is free")
            };
            let is_lost = |handle: &RedisLockHandle| *handle.lost_token().borrow();
            hold_all(count, lease, acquire, is_lost).await
        }
        _ => panic!("{kind:?} does not renew leases"),
    }
}

async fn hold_all<G>(
    count: u64,
    lease: Duration,
    acquire: impl AsyncFn(u64) -> G,
    is_lost: impl Fn(&G) -> bool,
) -> Cost {
    // Buffers grow with the first requests, however few leases there are.
    drop(acquire_all(count..count + TOGETHER, &acquire).await);
    let resident = resident_bytes();
    let mut guards = Vec::with_capacity(count as usize);
    while (guards.len() as u64) < count {
        let from = guards.len() as u64;
        let numbers = from..(from + TOGETHER).min(count);
        guards.extend(acquire_all(numbers, &acquire).await);
    }
    let (began, used) = (Instant::now(), processor_time());
    tokio::time::sleep(lease * 3).await;
    let cpu = (processor_time() - used).as_secs_f64() / began.elapsed().as_secs_f64();
    let bytes = resident_bytes().saturating_sub(resident) as f64 / count as f64;
    let lost = guards.iter().filter(|guard| is_lost(guard)).count();
    // Some would make a connection each for their release; they end with the server.
    std::mem::forget(guards);
    Cost {
        lost: lost as f64,
        cpu: cpu * 100.0,
        bytes,
    }
}

async fn acquire_all<G>(numbers: std::ops::Range<u64>, acquire: &impl AsyncFn(u64) -> G) -> Vec<G> {
    let mut guards = Vec::new();
    for number in numbers {
        guards.push(acquire(number).await);
    }
    guards
}

/// Returns the processor time of all threads, the user's and the system's.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}
