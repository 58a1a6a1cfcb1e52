//! What a caller gets when the body may not run, or may not go on: `error`, `skip` and an
//! expression, and how to tell the reasons apart.
//!
//! It needs no server: the locks are on a test provider, which fails and loses on command.
//!
//! ```text
//! cargo run --example error_handling
//! ```

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    DistributedLock, LockError, LockErrorKind, LockProvider, Skipped, distributed_lock,
};
use tokio::time::sleep;

// `on_unavailable = "error"`, the default: a `Result` whose error can be made from a `LockError`.

#[derive(Debug)]
enum BillingError {
    /// Nothing happened; ask again.
    Busy(LockError),
    /// It may have happened in part: look before you repeat it.
    Interrupted(LockError),
    /// The locks are out of order, or this program is.
    Broken(LockError),
}

impl From<LockError> for BillingError {
    fn from(error: LockError) -> Self {
        match error.kind() {
            LockErrorKind::Contended | LockErrorKind::TimedOut => Self::Busy(error),
            LockErrorKind::Lost | LockErrorKind::MaxHoldExceeded => Self::Interrupted(error),
            // The kinds grow with the library, hence the arm for all others.
            _ => Self::Broken(error),
        }
    }
}

impl BillingError {
    fn cause(&self) -> &LockError {
        match self {
            Self::Busy(cause) | Self::Interrupted(cause) | Self::Broken(cause) => cause,
        }
    }
}

impl fmt::Display for BillingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(error) => write!(f, "busy: {error}"),
            Self::Interrupted(error) => write!(f, "interrupted: {error}"),
            Self::Broken(error) => write!(f, "broken: {error}"),
        }
    }
}

#[distributed_lock(name = "invoice:{invoice}", timeout = "50ms", max_hold = "200ms")]
async fn settle(invoice: u64, work: Duration) -> Result<&'static str, BillingError> {
    sleep(work).await;
    Ok("settled")
}

/// Asks for a lock that its own caller holds.
#[distributed_lock(name = "invoice:{invoice}")]
async fn settle_again(invoice: u64) -> Result<&'static str, BillingError> {
    settle(invoice, Duration::ZERO).await
}

// `on_unavailable = "skip"`: a type that can say "did not run". Contention alone is skipped.

#[distributed_lock(name = "clean-up", on_unavailable = "skip")]
async fn clean_up() {}

#[distributed_lock(name = "clean-up", on_unavailable = "skip")]
async fn count_and_clean_up() -> Option<u32> {
    Some(3)
}

#[distributed_lock(name = "clean-up", on_unavailable = "skip")]
async fn try_clean_up() -> Result<Option<u32>, LockError> {
    Ok(Some(3))
}

#[derive(Debug, PartialEq)]
enum CleanUp {
    Done,
    LeftToAnother,
}

impl Skipped for CleanUp {
    fn skipped() -> Self {
        Self::LeftToAnother
    }
}

#[distributed_lock(name = "clean-up", on_unavailable = "skip")]
async fn clean_up_or_say_who() -> CleanUp {
    CleanUp::Done
}

// An expression: any return type. It sees the error, and its value is what the caller gets.

#[distributed_lock(
    name = "clean-up",
    on_unavailable = |error: LockError| format!("not now: {error}"),
)]
async fn clean_up_in_words() -> String {
    "cleaned up".to_owned()
}

static PROVIDER: LazyLock<TestProvider> = LazyLock::new(TestProvider::new);

/// Holds a lock as somebody else would.
async fn held_elsewhere(name: &str) -> Result<lock_runtime::LockGuard, LockError> {
    let elsewhere: Arc<dyn LockProvider> = Arc::new(PROVIDER.clone());
    DistributedLock::on(elsewhere, name).acquire().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    lock_runtime::register(PROVIDER.clone())?;

    println!("`error`:");
    show("the lock is free", &settle(7, Duration::ZERO).await, None);

    let guard = held_elsewhere("invoice:7").await?;
    let busy = settle(7, Duration::ZERO).await;
    show(
        "somebody else holds it",
        &busy,
        Some(LockErrorKind::TimedOut),
    );
    guard.release().await?;

    let again = settle_again(7).await;
    show(
        "its own caller holds it",
        &again,
        Some(LockErrorKind::WouldDeadlock),
    );

    let slow = settle(7, Duration::from_secs(10)).await;
    show(
        "it takes too long",
        &slow,
        Some(LockErrorKind::MaxHoldExceeded),
    );

    let (lost, ()) = tokio::join!(settle(7, Duration::from_secs(10)), async {
        sleep(Duration::from_millis(50)).await;
        PROVIDER.lose("invoice:7");
    });
    show(
        "the lock is lost meanwhile",
        &lost,
        Some(LockErrorKind::Lost),
    );

    PROVIDER.fail_next(Operation::Acquire, 1);
    let failed = settle(7, Duration::ZERO).await;
    show(
        "the provider does not answer",
        &failed,
        Some(LockErrorKind::ProviderUnavailable),
    );

    println!("\n`skip`:");
    clean_up().await;
    assert_eq!(count_and_clean_up().await, Some(3));
    assert!(matches!(try_clean_up().await, Ok(Some(3))));
    assert_eq!(clean_up_or_say_who().await, CleanUp::Done);
    println!("  all run while the lock is free");

    let guard = held_elsewhere("clean-up").await?;
    clean_up().await;
    println!("  somebody else holds it:");
    println!("    ()      → nothing happened");
    println!("    Option  → {:?}", count_and_clean_up().await);
    println!("    Result  → {:?}", try_clean_up().await);
    println!("    our own → {:?}", clean_up_or_say_who().await);
    assert_eq!(count_and_clean_up().await, None);
    assert!(matches!(try_clean_up().await, Ok(None)));
    assert_eq!(clean_up_or_say_who().await, CleanUp::LeftToAnother);

    println!("\nan expression:\n  {}", clean_up_in_words().await);
    assert!(clean_up_in_words().await.starts_with("not now"));
    guard.release().await?;

    // A failure is no contention: a `Result` tells, while `()` and `Option` can only log it.
    PROVIDER.fail_next(Operation::Acquire, 1);
    let failed = try_clean_up().await;
    println!("\n`skip`, and the provider does not answer:");
    println!(
        "  Result → {}",
        failed
            .as_ref()
            .map_or_else(ToString::to_string, |_| String::new())
    );
    assert_eq!(
        failed.unwrap_err().kind(),
        LockErrorKind::ProviderUnavailable
    );

    lock_runtime::shutdown().await;
    Ok(())
}

fn show(when: &str, result: &Result<&str, BillingError>, expected: Option<LockErrorKind>) {
    match result {
        Ok(value) => println!("  {when:<30} {value}"),
        Err(error) => println!("  {when:<30} {error}"),
    }
    let kind = result.as_ref().err().map(|error| error.cause().kind());
    assert_eq!(kind, expected, "{when}");
}
