use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", min_hold = "1s", max_hold = "10s", min_hold = "2s")]
async fn settle(invoice_id: u64) -> Result<u64, lock_runtime::LockError> {
    Ok(invoice_id)
}

fn main() {}
