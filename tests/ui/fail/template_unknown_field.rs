use lock_runtime::{LockError, distributed_lock};

struct Billing {
    tenant: String,
}

impl Billing {
    #[distributed_lock(name = "tenant:{self.tenat}")]
    async fn settle(&self) -> Result<(), LockError> {
        Ok(())
    }
}

fn main() {}
