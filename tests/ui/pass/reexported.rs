//! A library that re-exports the runtime, for users who do not depend on it themselves.

mod framework {
    pub mod deep {
        pub use lock_runtime::*;
    }
}

use framework::deep::{LockError, distributed_lock};

// Nothing but the path given by `crate` may be used.
extern crate std as lock_runtime_is_not_here;

#[distributed_lock(name = "invoice:{id}", guard = lock, crate = crate::framework::deep)]
async fn settle(id: u64) -> Result<bool, LockError> {
    Ok(lock.is_lost())
}

fn main() {
    drop(settle(1));
}
