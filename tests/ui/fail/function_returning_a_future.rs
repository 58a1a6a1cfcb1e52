use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
fn settle(invoice_id: u64) -> impl Future<Output = u64> {
    async move { invoice_id }
}

fn main() {}
