use lock_runtime::distributed_lock;

trait Billing {
    #[distributed_lock(name = "invoice")]
    async fn settle(&self);
}

fn main() {}
