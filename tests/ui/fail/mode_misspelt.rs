use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", mode = "raed")]
async fn settle(invoice_id: u64) -> Result<u64, lock_runtime::LockError> {
    Ok(invoice_id)
}

fn main() {}
