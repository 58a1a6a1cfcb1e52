use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
async fn settle(invoice_id: u64) -> Result<u64, std::fmt::Error> {
    Ok(invoice_id)
}

fn main() {}
