//! `DistributedSemaphore`: a named semaphore, for use without the attribute.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::acquire::Acquiring;
use crate::cached_slot::CachedSlot;
use crate::clock::Span;
use crate::error::LockError;
use crate::gate::{ReleaseMode, SlotRef, Wanted};
use crate::inspect::{count_left, inspect};
use crate::kind::Permits;
use crate::lock::{or_none, slot_of};
use crate::lock_part::LockPart;
use crate::name::LockName;
use crate::provider::{LockKind, LockProvider, LockState};
use crate::several::Wish;
use crate::shared_guard::SemaphorePermit;
use crate::source::Source;

/// A named number of permits, of which each holder has one or more. To make one does nothing and
/// always succeeds. It is cheap to clone, and can be kept and used any number of times.
///
/// Callers of one process are served in the order in which they ask: one who wants three permits is
/// not overtaken by those who want one.
///
/// Each caller says how many permits there are in all. If they differ, each one's own number counts
/// for it, and no more permits are out than the largest number in use. A name is either a mutex, a
/// reader–writer lock or a semaphore; another kind in the same process gets
/// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig).
///
/// # Cancel safety
///
/// Every acquisition may be dropped at any await. What it had acquired or begun is given back in
/// the background.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock_runtime::LockError> {
/// use lock_runtime::DistributedSemaphore;
///
/// let calls = DistributedSemaphore::new("partner-calls", 2);
/// let (one, another) = (calls.acquire().await?, calls.acquire().await?);
/// assert!(calls.try_acquire().await?.is_none(), "both are taken");
/// drop(one);
/// another.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DistributedSemaphore {
    source: Option<Arc<Source>>,
    name: LockName,
    permits: u32,
    lease: Span,
    min_hold: Span,
    release: ReleaseMode,
    slot: CachedSlot,
}

impl DistributedSemaphore {
    /// Makes the semaphore of this name, with so many permits in all, on the default provider,
    /// which is looked up at each acquisition.
    pub fn new(name: impl Into<LockName>, permits: u32) -> Self {
        Self::make(None, name.into(), permits)
    }

    /// Makes the semaphore of this name, with so many permits in all, on this provider.
    pub fn on(provider: Arc<dyn LockProvider>, name: impl Into<LockName>, permits: u32) -> Self {
        Self::make(Some(Source::new(provider)), name.into(), permits)
    }

    fn make(source: Option<Arc<Source>>, name: LockName, permits: u32) -> Self {
        Self {
            source,
            name,
            permits,
            lease: Span::NONE,
            min_hold: Span::NONE,
            release: ReleaseMode::Confirmed,
            slot: CachedSlot::new(),
        }
    }

    /// Sets the lease, 100 ms to 24 h. By default it is the provider's. A provider that has no
    /// leases ignores it.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Span::of(lease);
        self
    }

    /// Keeps permits for at least this long after they were acquired, up to 24 h, as
    /// [`DistributedLock::min_hold`](crate::DistributedLock::min_hold) does. Three permits with a
    /// `min_hold` of one second are a limit of three calls a second.
    #[must_use]
    pub fn min_hold(mut self, min_hold: Duration) -> Self {
        self.min_hold = Span::of(min_hold);
        self
    }

    /// Lets a release return as soon as it has been handed to the provider's connection, as
    /// [`DistributedLock::release_in_background`](crate::DistributedLock::release_in_background)
    /// does.
    #[must_use]
    pub fn release_in_background(mut self) -> Self {
        self.release = ReleaseMode::Background;
        self
    }

    /// Returns the semaphore's name.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// Returns how many permits there are in all.
    pub fn permits(&self) -> u32 {
        self.permits
    }

    /// Tells who has permits now, how many are left, and how many wait, as
    /// [`DistributedLock::inspect`](crate::DistributedLock::inspect) does. What is left is counted
    /// by the number of permits that this semaphore was made with.
    ///
    /// # Errors
    ///
    /// As [`DistributedLock::inspect`](crate::DistributedLock::inspect).
    pub async fn inspect(&self) -> Result<LockState, LockError> {
        let state = inspect(self.slot()?).await?;
        Ok(count_left(state, self.permits))
    }

    /// Acquires one permit, and waits for it as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`DistributedLock::acquire`](crate::DistributedLock::acquire).
    /// [`WouldDeadlock`](crate::LockErrorKind::WouldDeadlock) if the calling task holds so many
    /// permits through the attribute that there are not enough others,
    /// [`Unsupported`](crate::LockErrorKind::Unsupported) if the provider has no semaphores, and
    /// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if there are no permits at all, or
    /// the name is in use as another kind of lock.
    pub async fn acquire(&self) -> Result<SemaphorePermit, LockError> {
        self.take(1, None).await
    }

    /// Acquires one permit, and waits for it at most this long. A timeout of zero tries once.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and as
    /// [`DistributedLock::acquire_for`](crate::DistributedLock::acquire_for).
    pub async fn acquire_for(&self, timeout: Duration) -> Result<SemaphorePermit, LockError> {
        self.take(1, Some(timeout)).await
    }

    /// Acquires one permit if one is free. Returns `None` if none is.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(&self) -> Result<Option<SemaphorePermit>, LockError> {
        or_none(self.take(1, Some(Duration::ZERO)).await)
    }

    /// Acquires one permit, and waits for it at most this long. Returns `None` if none was free by
    /// then.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire_for(
        &self,
        timeout: Duration,
    ) -> Result<Option<SemaphorePermit>, LockError> {
        or_none(self.take(1, Some(timeout)).await)
    }

    /// Acquires so many permits together, and waits for them as long as it takes. No one of them is
    /// held before all are.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    /// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if `n` is zero or above the number of
    /// all permits, and [`Unsupported`](crate::LockErrorKind::Unsupported) if the provider cannot
    /// grant several at once.
    pub async fn acquire_many(&self, n: u32) -> Result<SemaphorePermit, LockError> {
        self.take(n, None).await
    }

    /// Acquires so many permits together, and waits for them at most this long. A timeout of zero
    /// tries once.
    ///
    /// # Errors
    ///
    /// As [`acquire_many`](Self::acquire_many), and as [`acquire_for`](Self::acquire_for).
    pub async fn acquire_many_for(
        &self,
        n: u32,
        timeout: Duration,
    ) -> Result<SemaphorePermit, LockError> {
        self.take(n, Some(timeout)).await
    }

    /// Acquires so many permits together if they are free. Returns `None` if they are not.
    ///
    /// # Errors
    ///
    /// As [`acquire_many`](Self::acquire_many).
    pub async fn try_acquire_many(&self, n: u32) -> Result<Option<SemaphorePermit>, LockError> {
        or_none(self.take(n, Some(Duration::ZERO)).await)
    }

    /// Acquires so many permits together, and waits for them at most this long. Returns `None` if
    /// they were not free by then.
    ///
    /// # Errors
    ///
    /// As [`acquire_many`](Self::acquire_many).
    pub async fn try_acquire_many_for(
        &self,
        n: u32,
        timeout: Duration,
    ) -> Result<Option<SemaphorePermit>, LockError> {
        or_none(self.take(n, Some(timeout)).await)
    }

    /// Returns the semaphore as one of several locks, of which so many permits are taken.
    pub fn taking(&self, n: u32) -> LockPart {
        let wish = Wish::Permits(Permits {
            limit: self.permits,
            take: n,
        });
        LockPart {
            source: self.source.clone(),
            name: self.name.clone(),
            wish,
            lease: self.lease,
            min_hold: self.min_hold,
            release: self.release,
            slot: self.slot.clone(),
        }
    }

    async fn take(
        &self,
        take: u32,
        timeout: Option<Duration>,
    ) -> Result<SemaphorePermit, LockError> {
        let wanted = Wanted {
            lease: self.lease,
            timeout: Span::maybe(timeout),
            min_hold: self.min_hold,
            release: self.release,
            template: "",
            measured: true,
        };
        let limit = self.permits;
        let kind = Permits { limit, take };
        Acquiring::new(kind, &mut Some(self.slot()?), &wanted, &mut None).await
    }

    fn slot(&self) -> Result<SlotRef, LockError> {
        slot_of(
            &self.slot,
            self.source.as_ref(),
            &self.name,
            LockKind::Semaphore,
        )
    }
}

impl fmt::Debug for DistributedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = self.source.as_ref().map(|source| source.name());
        f.debug_struct("DistributedSemaphore")
            .field("name", &self.name)
            .field("permits", &self.permits)
            .field("provider", &provider.unwrap_or("default"))
            .field("lease", &self.lease.get())
            .field("min_hold", &self.min_hold.get())
            .field("release", &self.release)
            .finish()
    }
}
