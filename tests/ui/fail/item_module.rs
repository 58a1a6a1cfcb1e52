use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
mod billing {}

fn main() {}
