use lock_runtime::distributed_lock;

use async_trait::async_trait;

struct Billing;

#[async_trait]
trait Settle {
    async fn settle(&self) -> u64;
}


#[async_trait]
impl Settle for Billing {
    #[distributed_lock(name = "invoice")]
    async fn settle(&self) -> u64 {
        1
    }
}

fn main() {}
