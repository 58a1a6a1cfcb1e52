use lock_runtime::distributed_lock;

#[distributed_lock(name = "in\0voice")]
async fn settle(invoice_id: u64) -> u64 {
    invoice_id
}

fn main() {}
