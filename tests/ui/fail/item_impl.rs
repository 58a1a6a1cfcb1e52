use lock_runtime::distributed_lock;

struct Billing;

#[distributed_lock(name = "invoice")]
impl Billing {
    async fn settle(&self) {}
}

fn main() {
    let _ = Billing.settle();
}
