use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice", on_unavailable = "skip")]
async fn settle(invoice_id: u64) -> Result<(), std::fmt::Error> {
    Ok(())
}

fn main() {}
