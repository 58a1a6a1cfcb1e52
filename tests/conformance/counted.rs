//! A provider that counts what another one is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, FencingToken, Grant, LockError, LockProvider,
    LockSpace, Timestamp,
};

/// Forwards everything but groups, which it makes single calls of.
pub(crate) struct Counted {
    inner: Arc<dyn LockProvider>,
    acquired: AtomicUsize,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn LockProvider>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            acquired: AtomicUsize::new(0),
        })
    }

    /// Returns how many grants it was asked for.
    pub(crate) fn acquired(&self) -> usize {
        self.acquired.load(Ordering::Relaxed)
    }
}

impl LockProvider for Counted {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.acquired.fetch_add(1, Ordering::Relaxed);
        self.inner.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.inner.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.inner.release(grant)
    }

    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.acquired.fetch_add(1, Ordering::Relaxed);
        self.inner.pass_on(grant, request)
    }

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        self.inner.may_share(grant)
    }

    fn release_later<'a>(
        &'a self,
        grant: &'a Grant,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<(), LockError>> {
        self.inner.release_later(grant, keep_for)
    }

    fn lock_space(&self) -> LockSpace {
        self.inner.lock_space()
    }

    fn grant_in_process(&self) -> Option<FencingToken> {
        self.inner.grant_in_process()
    }
}
