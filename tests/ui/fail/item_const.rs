use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
const TENANT: &str = "acme";

fn main() {}
