use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", timeout = "1.5s")]
async fn settle(invoice_id: u64) -> u64 {
    invoice_id
}

fn main() {}
