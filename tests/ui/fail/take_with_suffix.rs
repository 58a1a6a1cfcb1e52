use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", permits = 5, take = 3u64)]
async fn settle(invoice_id: u64) -> Result<u64, lock_runtime::LockError> {
    Ok(invoice_id)
}

fn main() {}
