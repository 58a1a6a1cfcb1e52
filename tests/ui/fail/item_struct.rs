use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
struct Billing {
    tenant: String,
}

fn main() {}
