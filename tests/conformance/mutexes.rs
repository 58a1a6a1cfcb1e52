//! A provider that has nothing but mutexes, as many of other people's have.

use lock_runtime::testing::TestProvider;
use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockError, LockMode, LockProvider, LockSpace,
    Timestamp,
};

/// Forwards what every provider must have, and says so.
pub(crate) struct Plain(pub(crate) TestProvider);

impl LockProvider for Plain {
    fn capabilities(&self) -> Capabilities {
        let whole = self.0.capabilities();
        let plain = Capabilities::new(whole.provider).with_fencing_tokens();
        whole.lease.map_or(plain, |lease| plain.with_lease(lease))
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        assert_eq!(request.mode(), LockMode::Exclusive, "it has nothing else");
        self.0.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.0.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }

    fn lock_space(&self) -> LockSpace {
        self.0.lock_space()
    }
}
