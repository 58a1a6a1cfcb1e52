use lock_runtime::distributed_lock;

#[distributed_lock(name = "{tenant}{invoice_id}", on_unavailable = "skip")]
async fn settle(tenant: &str, invoice_id: u64) {
    drop((tenant, invoice_id));
}

fn main() {}
