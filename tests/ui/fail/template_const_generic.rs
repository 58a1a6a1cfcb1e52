use lock_runtime::distributed_lock;

#[distributed_lock(name = "shard:{SHARD}", on_unavailable = "skip")]
async fn settle<const SHARD: usize>() {}

fn main() {}
