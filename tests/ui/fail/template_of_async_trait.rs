use async_trait::async_trait;
use lock_runtime::{LockError, distributed_lock};

struct Billing;

#[async_trait]
trait Settle {
    async fn settle(&self, key: (u32, u32)) -> Result<(), LockError>;
}

#[async_trait]
impl Settle for Billing {
    #[distributed_lock(name = "invoice:{shop}")]
    async fn settle(&self, (shp, _number): (u32, u32)) -> Result<(), LockError> {
        drop(shp);
        Ok(())
    }
}

fn main() {}
