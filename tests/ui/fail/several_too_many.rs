#[lock_runtime::distributed_lock(name = [
    "1:{id}", "2:{id}", "3:{id}", "4:{id}", "5:{id}", "6:{id}", "7:{id}", "8:{id}", "9:{id}",
    "10:{id}", "11:{id}", "12:{id}", "13:{id}", "14:{id}", "15:{id}", "16:{id}", "17:{id}", "18",
])]
async fn settle(id: u64) -> Result<u64, lock_runtime::LockError> {
    Ok(id)
}

fn main() {}
