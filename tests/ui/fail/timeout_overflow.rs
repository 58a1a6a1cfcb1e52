use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", timeout = "18446744073709551615ms1ms")]
async fn settle(invoice_id: u64) -> u64 {
    invoice_id
}

fn main() {}
