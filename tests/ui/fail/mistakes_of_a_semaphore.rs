use lock_runtime::distributed_lock;

#[distributed_lock(
    name = "invoice",
    mode = "reed",
    permits = "3",
    take = 0,
    min_hold = "1s",
    guard = lock
)]
async fn settle(invoice_id: u64) -> Result<u64, lock_runtime::LockError> {
    let _ = lock.fencing_token();
    Ok(invoice_id)
}

fn main() {}
