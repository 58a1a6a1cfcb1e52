use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
trait Billing {
    async fn settle(&self);
}

fn main() {}
