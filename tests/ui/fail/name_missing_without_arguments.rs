use lock_runtime::distributed_lock;

#[distributed_lock]
async fn settle(invoice_id: u64) -> u64 {
    invoice_id
}

fn main() {}
