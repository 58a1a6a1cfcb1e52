//! The option `on_unavailable`, which says what the caller gets when the body did not run.

use std::cell::Cell;

use lock_runtime::{LockError, LockErrorKind, Skipped, distributed_lock};

use crate::support::hold;

#[derive(Debug, PartialEq)]
enum BillingError {
    Lock(LockErrorKind),
    Empty,
}

impl From<LockError> for BillingError {
    fn from(error: LockError) -> Self {
        Self::Lock(error.kind())
    }
}

#[distributed_lock(name = "outcomes:error:{id}")]
async fn error(id: u32) -> Result<u32, BillingError> {
    if id == 0 {
        Err(BillingError::Empty)
    } else {
        Ok(id)
    }
}

#[tokio::test]
async fn error_converts_the_lock_error() {
    let _held = hold("outcomes:error:2").await;
    assert_eq!(error(1).await, Ok(1));
    assert_eq!(error(0).await, Err(BillingError::Empty));
    assert_eq!(
        error(2).await,
        Err(BillingError::Lock(LockErrorKind::Contended))
    );
}

#[distributed_lock(name = "outcomes:unit", on_unavailable = "skip")]
async fn unit(ran: &Cell<bool>) {
    ran.set(true);
}

#[distributed_lock(name = "outcomes:option", on_unavailable = "skip")]
async fn option(ran: &Cell<bool>) -> Option<u32> {
    ran.set(true);
    Some(1)
}

#[distributed_lock(name = "outcomes:result", on_unavailable = "skip")]
async fn result(ran: &Cell<bool>) -> Result<Option<u32>, BillingError> {
    ran.set(true);
    Ok(Some(1))
}

#[derive(Debug, PartialEq)]
enum Report {
    Sent,
    LeftToAnother,
}

impl Skipped for Report {
    fn skipped() -> Self {
        Self::LeftToAnother
    }
}

#[distributed_lock(name = "outcomes:own", on_unavailable = "skip")]
async fn own(ran: &Cell<bool>) -> Report {
    ran.set(true);
    Report::Sent
}

#[tokio::test]
async fn skip_says_that_the_body_did_not_run() {
    let ran = Cell::new(false);
    {
        let _held = (
            hold("outcomes:unit").await,
            hold("outcomes:option").await,
            hold("outcomes:result").await,
            hold("outcomes:own").await,
        );
        unit(&ran).await;
        assert_eq!(option(&ran).await, None);
        assert_eq!(result(&ran).await, Ok(None));
        assert_eq!(own(&ran).await, Report::LeftToAnother);
        assert!(!ran.get());
    }
    assert_eq!(option(&ran).await, Some(1));
    assert_eq!(result(&ran).await, Ok(Some(1)));
    assert_eq!(own(&ran).await, Report::Sent);
    ran.set(false);
    unit(&ran).await;
    assert!(ran.get());
}

#[distributed_lock(name = "x".repeat(2_000), on_unavailable = "skip")]
async fn invalid_result() -> Result<(), BillingError> {
    Ok(())
}

#[distributed_lock(name = "x".repeat(2_000), on_unavailable = "skip")]
async fn invalid_option() -> Option<()> {
    Some(())
}

#[tokio::test]
async fn skip_reports_what_is_no_contention() {
    let invalid = LockErrorKind::InvalidName;
    assert_eq!(invalid_result().await, Err(BillingError::Lock(invalid)));
    assert_eq!(invalid_option().await, None);
}

struct Counter {
    refused: Cell<u32>,
}

impl Counter {
    #[distributed_lock(
        name = "outcomes:closure",
        on_unavailable = |error| {
            self.refused.set(self.refused.get() + 1);
            format!("{step}: {:?}", error.kind())
        }
    )]
    async fn closure(&self, step: u32) -> String {
        format!("{step}: ran")
    }

    #[distributed_lock(name = "outcomes:path", on_unavailable = Self::refused)]
    async fn path(&self) -> u32 {
        self.refused.get()
    }

    fn refused(error: LockError) -> u32 {
        u32::from(error.is_contention()) * 100
    }
}

#[tokio::test]
async fn an_expression_is_called_with_the_error() {
    let counter = Counter {
        refused: Cell::new(0),
    };
    assert_eq!(counter.closure(1).await, "1: ran");
    assert_eq!(counter.path().await, 0);
    let _held = (hold("outcomes:closure").await, hold("outcomes:path").await);
    assert_eq!(counter.closure(2).await, "2: Contended");
    assert_eq!(counter.refused.get(), 1);
    assert_eq!(counter.path().await, 100);
}
