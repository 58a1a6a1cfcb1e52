use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice:{id}")]
async fn settle() {}

fn main() {}
