use lock_runtime::distributed_lock;

#[distributed_lock(name = invoice_id)]
async fn settle(invoice_id: u64) -> Result<(), lock_runtime::LockError> {
    Ok(())
}

fn main() {}
