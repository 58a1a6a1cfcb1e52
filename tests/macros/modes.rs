//! Readers, writers and permits: what `mode`, `permits` and `take` make of a function.

use std::pin::pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lock_runtime::{
    DistributedRwLock, DistributedSemaphore, LockError, LockErrorKind, LockName, RwLockReadGuard,
    RwLockWriteGuard, SemaphorePermit, distributed_lock,
};
use tokio::sync::Barrier;

use crate::support::{assert_send, hold, poll_once};

fn kind<T: std::fmt::Debug>(answer: Result<T, LockError>) -> LockErrorKind {
    answer.expect_err("an error").kind()
}

#[distributed_lock(name = "modes:{name}", mode = "read")]
async fn read<T>(name: &str, body: impl Future<Output = T>) -> Result<T, LockError> {
    Ok(body.await)
}

#[distributed_lock(name = "modes:{name}", mode = "write")]
async fn write<T>(name: &str, body: impl Future<Output = T>) -> Result<T, LockError> {
    Ok(body.await)
}

#[distributed_lock(name = "modes:{name}", permits = permits, take = take)]
async fn take<T>(
    name: &str,
    permits: u32,
    take: u32,
    body: impl Future<Output = T>,
) -> Result<T, LockError> {
    Ok(body.await)
}

#[tokio::test]
async fn readers_run_together() {
    let all_in = Barrier::new(3);
    let reader = || assert_send(read("together", all_in.wait()));
    let (one, two, three) = tokio::join!(reader(), reader(), reader());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
}

#[tokio::test]
async fn a_writer_is_alone() {
    let beside = write("alone", async {
        let others = (
            tokio::spawn(read("alone", async {})).await.unwrap(),
            tokio::spawn(write("alone", async {})).await.unwrap(),
        );
        (kind(others.0), kind(others.1))
    });
    let contended = (LockErrorKind::Contended, LockErrorKind::Contended);
    assert_eq!(beside.await.unwrap(), contended);
    let beside = read("alone", async {
        tokio::spawn(write("alone", async {})).await.unwrap()
    });
    assert_eq!(kind(beside.await.unwrap()), LockErrorKind::Contended);
    write("alone", async {}).await.unwrap();
}

#[distributed_lock(name = "modes:three", permits = 3, timeout = "none")]
async fn one_of_three(all_in: &Barrier) -> Result<(), LockError> {
    all_in.wait().await;
    Ok(())
}

#[tokio::test]
async fn as_many_run_as_there_are_permits() {
    let all_in = Barrier::new(3);
    let call = || one_of_three(&all_in);
    let mut first = pin!(async { tokio::try_join!(call(), call()) });
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(take("three", 3, 1, async {}).await.is_ok());
    let two = take("three", 3, 2, async {}).await;
    assert_eq!(kind(two), LockErrorKind::Contended);
    let (first, last) = tokio::join!(first, call());
    assert!(first.is_ok() && last.is_ok());
    assert!(take("three", 3, 3, async {}).await.is_ok());
}

fn of_reader(guard: &RwLockReadGuard) -> (LockName, u64) {
    let token = guard.fencing_token().expect("the provider gives tokens");
    (guard.name().clone(), token.get())
}

fn of_writer(guard: &RwLockWriteGuard) -> (LockName, u64) {
    let token = guard.fencing_token().expect("the provider gives tokens");
    (guard.name().clone(), token.get())
}

fn of_permit(guard: &SemaphorePermit) -> LockName {
    guard.name().clone()
}

#[distributed_lock(name = "modes:guards", mode = "read", timeout = "10s", guard = lock)]
async fn guarded_read() -> Result<(LockName, u64), LockError> {
    let lost = lock.lost();
    tokio::task::yield_now().await;
    drop(lost);
    assert!(!lock.is_lost());
    Ok(of_reader(lock))
}

#[distributed_lock(guard = lock, name = "modes:guards", mode = "write", min_hold = "1ms")]
async fn guarded_write() -> Result<(LockName, u64), LockError> {
    tokio::task::yield_now().await;
    Ok(of_writer(lock))
}

#[distributed_lock(name = "modes:guarded-permit", take = 2, guard = permit, permits = 2)]
async fn guarded_permit() -> Result<LockName, LockError> {
    tokio::task::yield_now().await;
    assert!(!permit.is_lost());
    Ok(of_permit(permit))
}

#[tokio::test]
async fn guards_have_the_type_of_their_mode() {
    let mut last = 0;
    for _ in 0..3 {
        let (name, token) = assert_send(guarded_read()).await.unwrap();
        assert_eq!(name, "modes:guards");
        assert!(token > last);
        last = token;
        let (name, token) = assert_send(guarded_write()).await.unwrap();
        assert_eq!(name, "modes:guards");
        assert!(token > last);
        last = token;
    }
    let name = assert_send(guarded_permit()).await.unwrap();
    assert_eq!(name, "modes:guarded-permit");
}

static EVALUATED: Mutex<Vec<&str>> = Mutex::new(Vec::new());

fn noted<T>(what: &'static str, value: T) -> T {
    EVALUATED.lock().unwrap().push(what);
    value
}

#[distributed_lock(
    on_unavailable = noted("outcome", |_| ()),
    min_hold = noted("min_hold", Duration::ZERO),
    timeout = noted("timeout", Duration::ZERO),
    lease = noted("lease", Duration::from_secs(1)),
    take = noted("take", 1),
    permits = noted("permits", 2),
    name = noted("name", "modes:order")
)]
async fn in_order() {
    noted("body", ());
}

#[tokio::test]
async fn expressions_are_evaluated_once_and_in_order() {
    let call = in_order();
    assert!(
        EVALUATED.lock().unwrap().is_empty(),
        "not before it is polled"
    );
    call.await;
    let evaluated = EVALUATED.lock().unwrap();
    let expected = [
        "name", "permits", "take", "min_hold", "timeout", "lease", "outcome", "body",
    ];
    assert_eq!(*evaluated, expected);
}

struct Api {
    limit: u32,
    name: String,
}

impl Api {
    #[distributed_lock(
        name = "modes:api:{self.name}",
        permits = self.limit,
        take = self.limit - others,
    )]
    async fn ask(&self, others: u32) -> Result<u32, LockError> {
        Ok(self.limit)
    }
}

#[tokio::test]
async fn numbers_come_from_parameters() {
    let api = Api {
        limit: 5,
        name: "x".to_owned(),
    };
    assert_eq!(api.ask(1).await.unwrap(), 5);
    let two = DistributedSemaphore::new("modes:api:x", 5);
    let _held = two.acquire_many(2).await.unwrap();
    assert_eq!(api.ask(2).await.unwrap(), 5);
    assert_eq!(kind(api.ask(1).await), LockErrorKind::Contended);
}

#[distributed_lock(name = "modes:bad", mode = "write", min_hold = min, max_hold = max)]
async fn held_between(min: Duration, max: Duration) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "modes:bad-lease", mode = "read", lease = lease)]
async fn leased(lease: Duration) -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn bad_values_at_run_time_are_errors() {
    for (permits, number) in [(0, 0), (0, 1), (3, 0), (3, 4), (1, u32::MAX)] {
        let answer = take("bad", permits, number, async { unreachable!() }).await;
        let error = answer.expect_err("refused");
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert_eq!(error.name().unwrap(), "modes:bad");
    }
    let second = Duration::from_secs(1);
    let answer = held_between(second * 2, second).await;
    assert_eq!(kind(answer), LockErrorKind::InvalidConfig);
    let answer = held_between(25 * 3600 * second, 48 * 3600 * second).await;
    assert_eq!(kind(answer), LockErrorKind::InvalidConfig);
    let answer = leased(Duration::from_millis(99)).await;
    assert_eq!(kind(answer), LockErrorKind::InvalidConfig);
}

#[distributed_lock(name = "modes:queue", mode = "write", timeout = "10s")]
async fn queued_write() -> Result<(), LockError> {
    Ok(())
}

/// To wait behind the writer, who waits for the outer reader, would be the deadlock.
#[tokio::test]
async fn a_reader_inside_a_reader_joins_it() {
    let mut writer = None;
    let outer = read("queue", async {
        let queued = writer.insert(tokio::spawn(queued_write()));
        while read_elsewhere("modes:queue").await {
            tokio::task::yield_now().await;
        }
        let inner = read("queue", async { read("queue", async {}).await });
        inner.await.unwrap().unwrap();
        assert!(!queued.is_finished());
    });
    outer.await.unwrap();
    writer.unwrap().await.unwrap().unwrap();
}

/// Tells whether another task may read.
async fn read_elsewhere(name: &'static str) -> bool {
    let lock = DistributedRwLock::new(name);
    let task = tokio::spawn(async move { lock.try_read().await.unwrap().is_some() });
    task.await.unwrap()
}

#[distributed_lock(name = "modes:nested", mode = "read", timeout = "10s")]
async fn waiting_read() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "modes:nested", mode = "write", timeout = "10s")]
async fn waiting_write() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "modes:nested-permits", permits = 3, take = 2, timeout = "10s")]
async fn two_of_three(inner: u32) -> Result<(), LockError> {
    match inner {
        1 => take("nested-permits", 3, 1, async {}).await,
        _ => Box::pin(two_of_three(1)).await,
    }
}

#[tokio::test]
async fn a_task_that_waits_for_itself_is_told_so() {
    let inside = read("nested", async { kind(waiting_write().await) });
    assert_eq!(inside.await.unwrap(), LockErrorKind::WouldDeadlock);
    let inside = write("nested", async {
        (kind(waiting_read().await), kind(waiting_write().await))
    });
    let deadlocks = (LockErrorKind::WouldDeadlock, LockErrorKind::WouldDeadlock);
    assert_eq!(inside.await.unwrap(), deadlocks);
    two_of_three(1).await.unwrap();
    assert_eq!(kind(two_of_three(2).await), LockErrorKind::WouldDeadlock);
    waiting_write().await.unwrap();
}

#[distributed_lock(name = "modes:skip", mode = "write", on_unavailable = "skip")]
async fn refresh(ran: &Mutex<u32>) {
    *ran.lock().unwrap() += 1;
}

#[distributed_lock(name = "modes:skip-permit", permits = 1, on_unavailable = "skip")]
async fn ask() -> Option<u32> {
    Some(7)
}

#[tokio::test]
async fn contention_is_skipped() {
    let ran = Mutex::new(0);
    let reader = DistributedRwLock::new("modes:skip").read().await.unwrap();
    refresh(&ran).await;
    reader.release().await.unwrap();
    refresh(&ran).await;
    assert_eq!(*ran.lock().unwrap(), 1);
    let permit = DistributedSemaphore::new("modes:skip-permit", 1);
    let permit = permit.acquire().await.unwrap();
    assert_eq!(ask().await, None);
    drop(permit);
    assert_eq!(ask().await, Some(7));
}

const MIN_HOLD: Duration = Duration::from_millis(300);

#[distributed_lock(name = "modes:min-hold", mode = "write", min_hold = MIN_HOLD)]
async fn short_write(fails: bool) -> Result<(), LockError> {
    match fails {
        true => Err(LockErrorKind::Contended.into()),
        false => Ok(()),
    }
}

#[distributed_lock(name = "modes:rate", permits = 1, min_hold = "300ms")]
async fn short_permit() -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn min_hold_keeps_a_write_and_a_permit() {
    for fails in [false, true] {
        let start = Instant::now();
        assert_eq!(short_write(fails).await.is_err(), fails);
        assert!(start.elapsed() < MIN_HOLD, "the call does not wait");
        let lock = DistributedRwLock::new("modes:min-hold");
        assert!(lock.try_read().await.unwrap().is_none());
        drop(lock.read().await.unwrap());
        assert!(start.elapsed() >= MIN_HOLD);
    }
    let start = Instant::now();
    short_permit().await.unwrap();
    let rate = DistributedSemaphore::new("modes:rate", 1);
    assert!(rate.try_acquire().await.unwrap().is_none());
    drop(rate.acquire().await.unwrap());
    assert!(start.elapsed() >= MIN_HOLD);
}

#[tokio::test]
async fn a_name_is_of_one_kind() {
    let mutex = hold("modes:kinds").await;
    let answer = read("kinds", async {}).await;
    assert_eq!(kind(answer), LockErrorKind::InvalidConfig);
    drop(mutex);
    let inside = read("kinds", async { take("kinds", 2, 1, async {}).await });
    let error = inside.await.unwrap().expect_err("another kind");
    assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    take("kinds", 2, 1, async {}).await.unwrap();
}
