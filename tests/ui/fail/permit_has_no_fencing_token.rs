use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", permits = 3, guard = permit)]
async fn settle(invoice_id: u64) -> Result<u64, lock_runtime::LockError> {
    Ok(permit.fencing_token().map_or(invoice_id, |token| token.get()))
}

fn main() {}
