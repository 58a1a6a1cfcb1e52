#[lock_runtime::distributed_lock(name = ["order:{id}"], guard = locks)]
async fn settle(id: u64) -> Result<u64, lock_runtime::LockError> {
    let _token = locks.fencing_token();
    Ok(id)
}

fn main() {}
