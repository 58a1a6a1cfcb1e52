use lock_runtime::distributed_lock;

struct Billing;

impl Billing {
    #[distributed_lock(name = "invoice:{}", guard = lock)]
    async fn settle(&self) -> bool {
        lock.is_lost()
    }

    #[distributed_lock(name = "invoice", gaurd = lock)]
    async fn refund(&self) -> bool {
        lock.is_lost()
    }
}

fn main() {
    let _ = (Billing.settle(), Billing.refund());
}
