use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", on_unavailable = invoice_id)]
async fn settle(invoice_id: u64) -> u64 {
    invoice_id
}

fn main() {}
