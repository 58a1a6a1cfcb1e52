#![deny(unused)]

use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", on_unavailable = "skip")]
async fn settle(invoice_id: u64) {
    let tenant = "acme";
    println!("{invoice_id}");
    return;
    println!("done");
}

fn main() {
    drop(settle(7));
}
