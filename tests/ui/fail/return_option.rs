use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
async fn settle(invoice_id: u64) -> Option<u64> {
    Some(invoice_id)
}

fn main() {}
