use lock_runtime::{LockGuard, RwLockReadGuard, RwLockWriteGuard, SemaphorePermit, distributed_lock};

fn mutex(_: &LockGuard) -> bool {
    true
}

fn reads(_: &RwLockReadGuard) -> bool {
    true
}

fn writes(_: &RwLockWriteGuard) -> bool {
    true
}

fn permit(_: &SemaphorePermit) -> bool {
    true
}

#[distributed_lock(name = "{}", guard = lock)]
async fn excluding() -> bool {
    mutex(lock)
}

#[distributed_lock(name = "{}", mode = "read", guard = lock)]
async fn reading() -> bool {
    reads(lock)
}

#[distributed_lock(name = "invoice", mode = "raed", guard = lock)]
async fn misreading() -> bool {
    reads(lock)
}

#[distributed_lock(name = "invoice", mode = write, guard = lock)]
async fn writing() -> bool {
    writes(lock)
}

#[distributed_lock(name = "invoice", mod = "write", guard = lock)]
async fn miswriting() -> bool {
    writes(lock)
}

#[distributed_lock(name = "invoice", permits = "3", guard = lock)]
async fn taking() -> bool {
    permit(lock)
}

#[distributed_lock(name = "invoice", permit = 3, guard = lock)]
async fn mistaking() -> bool {
    permit(lock)
}

fn main() {}
