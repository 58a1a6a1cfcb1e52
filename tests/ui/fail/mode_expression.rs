use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", mode = if invoice_id > 0 { "read" } else { "write" })]
async fn settle(invoice_id: u64) -> Result<u64, lock_runtime::LockError> {
    Ok(invoice_id)
}

fn main() {}
