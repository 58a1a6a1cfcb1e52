//! The expansion stores the body once.

use lock_runtime::{LockError, distributed_lock};

async fn plain(seed: u8) -> Result<u8, LockError> {
    let buffer = [seed; 2_048];
    tokio::task::yield_now().await;
    Ok(buffer[usize::from(seed)])
}

#[distributed_lock(name = "size:{seed}", timeout = "5s")]
async fn locked(seed: u8) -> Result<u8, LockError> {
    let buffer = [seed; 2_048];
    tokio::task::yield_now().await;
    Ok(buffer[usize::from(seed)])
}

#[distributed_lock(
    name = "size:{seed}:{seed}",
    timeout = "5s",
    lease = "30s",
    max_hold = "1m",
    guard = lock
)]
async fn locked_with_everything(seed: u8) -> Result<u8, LockError> {
    let buffer = [seed; 2_048];
    tokio::task::yield_now().await;
    Ok(buffer[usize::from(lock.is_lost())])
}

async fn plain_argument(buffer: [u8; 2_048]) -> Result<u8, LockError> {
    tokio::task::yield_now().await;
    Ok(buffer[0])
}

#[distributed_lock(name = "size:argument")]
async fn locked_argument(buffer: [u8; 2_048]) -> Result<u8, LockError> {
    tokio::task::yield_now().await;
    Ok(buffer[0])
}

#[test]
fn a_future_of_two_kibibytes_grows_by_a_quarter_at_most() {
    let plain = size_of_val(&plain(1));
    assert!(plain >= 2_048);
    for locked in [
        size_of_val(&locked(1)),
        size_of_val(&locked_with_everything(1)),
    ] {
        assert!(locked <= plain + plain / 4, "{locked} of {plain}");
    }
}

#[test]
fn a_large_argument_is_stored_no_more_often() {
    let plain = size_of_val(&plain_argument([0; 2_048]));
    let locked = size_of_val(&locked_argument([0; 2_048]));
    assert!(locked <= plain + 512, "{locked} of {plain}");
}
