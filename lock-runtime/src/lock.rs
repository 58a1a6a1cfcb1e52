//! `DistributedLock`: a named lock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::OnceCell;

use crate::gate::{Acquire, SlotRef};
use crate::guard::LockGuard;
use crate::provider::LockProvider;
use crate::{LockError, LockName};
use crate::{registry, table};

/// A named lock. Making one does nothing and always succeeds; it is cheap to clone, and can be
/// kept and acquired as often as one likes.
///
/// # Cancel safety
///
/// Every acquisition may be dropped at any await: what it had acquired or begun is given back in
/// the background.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock_runtime::LockError> {
/// use std::time::Duration;
/// use lock_runtime::DistributedLock;
///
/// let lock = DistributedLock::new("nightly-report");
/// if let Some(guard) = lock.try_acquire_for(Duration::from_secs(5)).await? {
///     // … the report …
///     guard.release().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DistributedLock {
    provider: Option<Arc<dyn LockProvider>>,
    name: LockName,
    lease: Option<Duration>,
    slot: KnownSlot,
}

impl DistributedLock {
    /// The lock of this name on the default provider, looked up at each acquisition.
    pub fn new(name: impl Into<LockName>) -> Self {
        Self {
            provider: None,
            name: name.into(),
            lease: None,
            slot: KnownSlot::new(),
        }
    }

    /// The lock of this name on this provider.
    pub fn on(provider: Arc<dyn LockProvider>, name: impl Into<LockName>) -> Self {
        Self {
            provider: Some(provider),
            name: name.into(),
            lease: None,
            slot: KnownSlot::new(),
        }
    }

    /// With this lease, 100 ms to 24 h, instead of the provider's default. Without meaning for a
    /// provider that has no leases.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The lock's name.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// Acquires the lock; waits as long as it takes.
    ///
    /// # Errors
    ///
    /// Every kind but contention.
    pub async fn acquire(&self) -> Result<LockGuard, LockError> {
        Acquire::new(self.slot()?, self.lease, None, "").await
    }

    /// Acquires the lock, waiting at most this long.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::LockErrorKind::TimedOut) if somebody else held it all the while,
    /// [`Contended`](crate::LockErrorKind::Contended) if the timeout is zero and somebody else holds it;
    /// any other kind for what went wrong.
    pub async fn acquire_for(&self, timeout: Duration) -> Result<LockGuard, LockError> {
        Acquire::new(self.slot()?, self.lease, Some(timeout), "").await
    }

    /// Acquires the lock if it is free; `None` if somebody else holds it.
    ///
    /// # Errors
    ///
    /// Every kind but contention.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, LockError> {
        self.try_acquire_for(Duration::ZERO).await
    }

    /// Acquires the lock, waiting at most this long; `None` if somebody else held it all the while.
    ///
    /// # Errors
    ///
    /// Every kind but contention.
    pub async fn try_acquire_for(&self, timeout: Duration) -> Result<Option<LockGuard>, LockError> {
        match self.acquire_for(timeout).await {
            Ok(guard) => Ok(Some(guard)),
            Err(error) if error.is_contention() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn slot(&self) -> Result<SlotRef, LockError> {
        let provider = match &self.provider {
            Some(provider) => provider,
            None => registry::default()?,
        };
        self.slot.get(provider, &self.name)
    }
}

impl fmt::Debug for DistributedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = self
            .provider
            .as_ref()
            .map(|provider| provider.capabilities().provider);
        f.debug_struct("DistributedLock")
            .field("name", &self.name)
            .field("provider", &provider.unwrap_or("default"))
            .field("lease", &self.lease)
            .finish()
    }
}

/// The slot that was found first for a name; looking it up again costs more than all the rest.
#[derive(Clone)]
pub(crate) struct KnownSlot(OnceCell<SlotRef>);

impl KnownSlot {
    pub(crate) const fn new() -> Self {
        Self(OnceCell::new())
    }

    /// The slot of this name, which is always the same.
    pub(crate) fn get(
        &self,
        provider: &Arc<dyn LockProvider>,
        name: &LockName,
    ) -> Result<SlotRef, LockError> {
        let known = self.0.get_or_try_init(|| table::enter(provider, name))?;
        if Arc::ptr_eq(&known.provider, provider) || known.space == provider.lock_space() {
            return Ok(known.clone());
        }
        // A default provider was registered since.
        table::enter(provider, name)
    }
}
