use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", permits = invoice_id)]
async fn settle(invoice_id: u64) -> Result<u64, lock_runtime::LockError> {
    Ok(invoice_id)
}

fn main() {}
