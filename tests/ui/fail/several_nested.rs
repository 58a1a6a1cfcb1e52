#[lock_runtime::distributed_lock(name = ["order:{id}", ["invoice:{id}"]])]
async fn settle(id: u64) -> Result<u64, lock_runtime::LockError> {
    Ok(id)
}

fn main() {}
