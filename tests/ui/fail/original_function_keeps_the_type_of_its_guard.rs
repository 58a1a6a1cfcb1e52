use lock_runtime::{LockGuard, RwLockReadGuard, RwLockWriteGuard, SemaphorePermit, distributed_lock};

fn mutex(_: &LockGuard) {}

fn reads(_: &RwLockReadGuard) {}

fn writes(_: &RwLockWriteGuard) {}

fn permit(_: &SemaphorePermit) {}

#[distributed_lock(name = "{}", guard = lock)]
async fn excluding() {
    mutex(lock);
}

#[distributed_lock(name = "{}", mode = "read", guard = lock)]
async fn reading() {
    reads(lock);
}

#[distributed_lock(name = "invoice", mode = "raed", guard = lock)]
async fn misreading() {
    reads(lock);
}

#[distributed_lock(name = "invoice", mode = write, guard = lock)]
async fn writing() {
    writes(lock);
}

#[distributed_lock(name = "invoice", mod = "write", guard = lock)]
async fn miswriting() {
    writes(lock);
}

#[distributed_lock(name = "invoice", permits = "3", guard = lock)]
async fn taking() {
    permit(lock);
}

#[distributed_lock(name = "invoice", permit = 3, guard = lock)]
async fn mistaking() {
    permit(lock);
}

fn main() {}
