//! A holder that is stopped by a signal for longer than its lease.

use std::time::{Duration, Instant};

use lock_runtime::LockGuard;

use crate::history::Held;
use crate::{FencedRegister, History, Probe, boot_nanos};

/// Freezes a process that holds the lock for three leases, while others `take` it, and lets it go
/// on.
///
/// It must know then that it holds the lock no more, and is fenced off; the history and a fenced
/// register judge. Returns the guard of the last of the others, which still holds the lock.
///
/// # Panics
///
/// If anything is otherwise, or takes longer than the bound.
pub async fn outlived<F>(
    mut frozen: Probe,
    lease: Duration,
    bound: Duration,
    take: impl Fn() -> F,
) -> LockGuard
where
    F: Future<Output = LockGuard>,
{
    let (register, history) = (FencedRegister::default(), History::default());
    let record = |holder: &str, from, until, token| {
        history.record(Held {
            name: "order".to_owned(),
            holder: holder.to_owned(),
            from,
            until,
            token: Some(token),
        });
    };
    let number = |word: &String| word.parse().expect("a number");
    let answer = frozen.ask("acquire", "acquired", bound).await;
    let stale: u64 = number(&answer[2]);
    assert!(register.write("order", stale));
    let valid = frozen.ask("is-lost", "valid", bound).await;
    frozen.freeze();
    let stopped = Instant::now();
    record("frozen", number(&answer[1]), number(&valid[1]), stale);

    // Meanwhile others hold it, one after another.
    while stopped.elapsed() < lease * 3 {
        let guard = take().await;
        let from = boot_nanos();
        let token = guard.fencing_token().expect("a token").get();
        assert!(register.write("order", token));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let until = boot_nanos();
        assert!(!guard.is_lost());
        guard.release().await.expect("it is held");
        record("other", from, until, token);
    }
    let last = take().await;

    frozen.thaw();
    frozen.ask("is-lost", "lost", bound).await;
    assert!(
        !register.write("order", stale),
        "the stale write is refused"
    );
    assert_eq!(register.refused(), 1);
    frozen.ask("release", "releasing", bound).await;
    assert_eq!(frozen.expect("failed", bound).await[1], "Lost");
    assert!(!last.is_lost());
    history.check();
    assert!(history.len() > 2 && history.changes_of_holder() == 1);
    last
}
