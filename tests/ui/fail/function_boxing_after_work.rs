use lock_runtime::distributed_lock;

use std::pin::Pin;

#[distributed_lock(name = "invoice")]
fn settle(invoice_id: u64) -> Pin<Box<dyn Future<Output = u64>>> {
    println!("not under the lock");
    Box::pin(async move { invoice_id })
}

fn main() {}
