use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", provider = locks)]
async fn settle(locks: &str) -> Result<(), lock_runtime::LockError> {
    Ok(())
}

fn main() {}
