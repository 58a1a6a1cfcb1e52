use lock_runtime::distributed_lock;

#[distributed_lock(name = "{0}:{tenat}{id:?}:{}", on_unavailable = "skip")]
async fn settle(tenant: &str, id: u64) {
    drop((tenant, id));
}

fn main() {}
