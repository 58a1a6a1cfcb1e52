extern crate async_trait as core;

use lock_runtime::distributed_lock;

#[distributed_lock(name = "", guard = lock)]
async fn settle() -> bool {
    lock.is_lost()
}

fn main() {}
