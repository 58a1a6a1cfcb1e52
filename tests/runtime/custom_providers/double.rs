//! A provider that breaks its contract in one way, and keeps it in all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lock_runtime::testing::TestProvider;
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, FencingToken, Grant, LockError,
    LockErrorKind, LockProvider, Timestamp,
};

pub(super) const LEASE: Duration = Duration::from_millis(300);

/// The way in which a provider breaks its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A grant comes when its validity is over.
    GrantsLate,
    /// The validity of a grant begins in the far future.
    DatesGrantsAhead,
    /// `renew` answers the end of the new validity and not its beginning.
    RenewsWithTheEnd,
    /// `acquire` answers with a kind that only the library can know.
    Says(LockErrorKind),
    /// `capabilities` panics once it has been asked so many times.
    PanicsInCapabilities(usize),
    /// The renewal of the lock `bad` panics.
    OneRenewalPanics,
    /// `release` frees the lock and never answers.
    ReleaseHangs,
    /// `acquire` never answers, and says nothing.
    AcquireHangs,
    /// Each token is below the one before.
    TokensFall,
    /// All tokens are alike.
    TokensStay,
    /// `pass_on` panics, before it has done anything.
    PassOnPanics,
    /// `acquire` blocks the thread that it is polled on, for so many milliseconds.
    Blocks(u64),
}

pub(super) struct Double {
    pub(super) inner: TestProvider,
    fault: Fault,
    asked: AtomicUsize,
    token: AtomicU64,
}

impl Double {
    pub(super) fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            inner: TestProvider::new().with_lease(LEASE),
            fault,
            asked: AtomicUsize::new(0),
            token: AtomicU64::new(1_000),
        })
    }

    pub(super) fn lock(self: &Arc<Self>, name: &str) -> DistributedLock {
        DistributedLock::on(self.clone(), name)
    }
}

impl LockProvider for Double {
    fn capabilities(&self) -> Capabilities {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if let Fault::PanicsInCapabilities(after) = self.fault {
            assert!(asked < after, "on purpose");
        }
        self.inner.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            match self.fault {
                Fault::GrantsLate => {
                    let sent_at = Timestamp::now();
                    let grant = self.inner.acquire(request).await?;
                    tokio::time::sleep(LEASE + Duration::from_millis(20)).await;
                    let _ = grant;
                    Ok(Grant::new(request, sent_at))
                }
                Fault::DatesGrantsAhead => {
                    self.inner.acquire(request).await?;
                    let ahead = Timestamp::now() + Duration::from_secs(100);
                    Ok(Grant::new(request, ahead))
                }
                Fault::Says(kind) => Err(kind.into()),
                Fault::AcquireHangs => std::future::pending().await,
                Fault::Blocks(millis) => {
                    std::thread::sleep(Duration::from_millis(millis));
                    self.inner.acquire(request).await
                }
                Fault::TokensFall | Fault::TokensStay => {
                    let step = u64::from(self.fault == Fault::TokensFall);
                    let token = self.token.fetch_sub(step, Ordering::Relaxed);
                    let sent_at = Timestamp::now();
                    self.inner.acquire(request).await?;
                    Ok(Grant::new(request, sent_at).with_token(FencingToken::new(token)))
                }
                _ => self.inner.acquire(request).await,
            }
        })
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        Box::pin(async move {
            match self.fault {
                Fault::OneRenewalPanics if grant.name() == "bad" => panic!("on purpose"),
                Fault::RenewsWithTheEnd | Fault::DatesGrantsAhead => {
                    // The server is frozen: only the answer keeps it alive.
                    Ok(Timestamp::now() + LEASE * 100)
                }
                _ => self.inner.renew(grant).await,
            }
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let released = self.inner.release(grant).await;
            if self.fault == Fault::ReleaseHangs {
                std::future::pending::<()>().await;
            }
            released
        })
    }

    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            assert!(self.fault != Fault::PassOnPanics, "on purpose");
            let _ = self.release(grant).await;
            self.acquire(request).await
        })
    }
}
