use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
async fn settle(_invoice_id: u64) {}

fn main() {}
