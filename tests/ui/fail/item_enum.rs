use lock_runtime::distributed_lock;

#[distributed_lock(name = "invoice")]
pub enum Billing {
    Open,
}

fn main() {}
