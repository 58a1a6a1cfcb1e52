#[lock_runtime::distributed_lock(
    name = ["order:{i}", "", "{id:?}", 7, "fine:{id}"],
    mode = "wrte",
    guard = locks
)]
async fn settle(id: u64) -> Result<u64, lock_runtime::LockError> {
    // What the guard is can still be told.
    locks.names().for_each(drop);
    Ok(id)
}

fn main() {}
