use lock_runtime::distributed_lock;

// What `#[pollster::main]`, put above the attribute, leaves.
#[distributed_lock(name = "invoice")]
fn settle(invoice_id: u64) -> u64 {
    pollster::block_on(async move { invoice_id })
}

mod pollster {
    pub fn block_on<F: Future>(_: F) -> F::Output {
        unimplemented!()
    }
}

fn main() {}
