//! A task that asks for what it holds does not wait for itself; another task waits.

use lock_runtime::{LockError, LockErrorKind, distributed_lock};

use crate::support::{assert_send, is_held};

#[distributed_lock(name = "nesting:outer:{id}", timeout = "10s")]
async fn outer(id: u32, inner_id: u32) -> Result<u32, LockError> {
    tokio::task::yield_now().await;
    Ok(1 + inner(inner_id).await?)
}

#[distributed_lock(name = "nesting:outer:{id}", timeout = "10s")]
async fn inner(id: u32) -> Result<u32, LockError> {
    tokio::task::yield_now().await;
    Ok(1)
}

#[tokio::test]
async fn nested_calls() {
    assert_eq!(outer(1, 2).await.unwrap(), 2);
    let error = outer(1, 1).await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::WouldDeadlock);
    assert_eq!(error.name().unwrap(), "nesting:outer:1");
    assert!(!is_held("nesting:outer:1").await);
}

#[distributed_lock(name = "nesting:recursive:{depth}", timeout = "10s")]
async fn down(depth: u32, step: u32) -> Result<u32, LockError> {
    match depth {
        0 => Ok(0),
        _ => Ok(1 + Box::pin(down(depth - step, step)).await?),
    }
}

#[tokio::test]
async fn boxed_recursion() {
    assert_eq!(assert_send(down(5, 1)).await.unwrap(), 5);
    let error = down(5, 0).await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::WouldDeadlock);
}

#[distributed_lock(name = "nesting:join", timeout = "10s", guard = lock)]
async fn sibling() -> Result<u64, LockError> {
    tokio::task::yield_now().await;
    Ok(lock.fencing_token().unwrap().to_string().parse().unwrap())
}

#[distributed_lock(name = "nesting:join", timeout = "10s")]
async fn joins_itself() -> Result<(), LockError> {
    let (first, second) = tokio::join!(sibling(), sibling());
    first?;
    second?;
    Ok(())
}

#[tokio::test]
async fn siblings_of_a_join() {
    let (first, second) = tokio::join!(sibling(), sibling());
    assert!(first.unwrap() < second.unwrap());
    let error = joins_itself().await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::WouldDeadlock);
}

#[distributed_lock(name = "nesting:spawn", timeout = "10s")]
async fn spawns() -> Result<tokio::task::JoinHandle<Result<u32, LockError>>, LockError> {
    #[distributed_lock(name = "nesting:spawn", timeout = "10s")]
    async fn spawned() -> Result<u32, LockError> {
        Ok(7)
    }
    let task = tokio::spawn(spawned());
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    Ok(task)
}

#[tokio::test]
async fn another_task_waits() {
    let task = spawns().await.unwrap();
    assert_eq!(task.await.unwrap().unwrap(), 7);
}
