use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice:{id}", on_unavailable = "skip")]
async fn settle() {}

fn main() {}
