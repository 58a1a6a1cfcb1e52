use lock_runtime::distributed_lock;

#[distributed_lock(name = "shard:{SHARD}")]
async fn settle<const SHARD: usize>() {}

fn main() {}
