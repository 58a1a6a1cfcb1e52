use lock_runtime::distributed_lock;

struct Billing;

impl Billing {
    /// The mistake is in the attribute alone: the call in `main` must not be a second one.
    #[distributed_lock(name = "invoice:{}")]
    async fn settle(&self, invoice_id: u64) -> u64 {
        invoice_id
    }
}

fn main() {
    let _ = Billing.settle(7);
}
