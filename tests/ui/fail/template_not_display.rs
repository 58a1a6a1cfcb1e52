use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice:{_invoice_id}")]
async fn settle(_invoice_id: Option<u64>) -> Result<(), lock_runtime::LockError> {
    Ok(())
}

fn main() {}
