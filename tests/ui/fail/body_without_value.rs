use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
async fn settle(invoice_id: u64) -> Result<u64, lock_runtime::LockError> {
    invoice_id + 1;
}

fn main() {}
