use lock_runtime::distributed_lock;

struct Billing;

impl Billing {
    #[distributed_lock(
        name = "invoice:{invoce_id}",
        timeout = "5sec",
        lease = "10ms",
        on_unavailable = "ignore",
        retries = 3
    )]
    async fn settle(&self, invoice_id: u64) -> u64 {
        invoice_id
    }
}

fn main() {
    let _ = Billing.settle(7);
}
