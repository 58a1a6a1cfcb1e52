//! `DistributedRwLock`: a named reader–writer lock, for use without the attribute.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::acquire::Acquiring;
use crate::cached_slot::CachedSlot;
use crate::clock::Span;
use crate::error::LockError;
use crate::gate::{ReleaseMode, SlotRef, Wanted};
use crate::inspect::inspect;
use crate::kind::{Kind, Read, Upgradeable, Write};
use crate::lock::{or_none, slot_of};
use crate::lock_part::LockPart;
use crate::name::LockName;
use crate::provider::{LockKind, LockProvider, LockState};
use crate::several::Wish;
use crate::shared_guard::{RwLockReadGuard, RwLockUpgradeableReadGuard, RwLockWriteGuard};
use crate::source::Source;

/// A named lock that any number of readers may hold at the same time, or one writer alone. To make
/// one does nothing and always succeeds. It is cheap to clone, and can be kept and used any number
/// of times.
///
/// Readers and writers are served in the order in which they ask, and readers who stand next to
/// each other in that order enter together. So neither side keeps the other out for ever.
///
/// Readers of one process share one grant of the server, and what is left of its lease. A name is
/// either a mutex, a reader–writer lock or a semaphore; another kind in the same process gets
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
/// use lock_runtime::DistributedRwLock;
///
/// let prices = DistributedRwLock::new("prices");
/// let (one, another) = (prices.read().await?, prices.read().await?);
/// assert!(prices.try_write().await?.is_none(), "somebody reads");
/// drop((one, another));
/// prices.write().await?.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DistributedRwLock {
    source: Option<Arc<Source>>,
    name: LockName,
    lease: Span,
    min_hold: Span,
    release: ReleaseMode,
    slot: CachedSlot,
}

impl DistributedRwLock {
    /// Makes the lock of this name on the default provider, which is looked up at each acquisition.
    pub fn new(name: impl Into<LockName>) -> Self {
        Self::make(None, name.into())
    }

    /// Makes the lock of this name on this provider.
    pub fn on(provider: Arc<dyn LockProvider>, name: impl Into<LockName>) -> Self {
        Self::make(Some(Source::new(provider)), name.into())
    }

    fn make(source: Option<Arc<Source>>, name: LockName) -> Self {
        Self {
            source,
            name,
            lease: Span::NONE,
            min_hold: Span::NONE,
            release: ReleaseMode::Confirmed,
            slot: CachedSlot::new(),
        }
    }

    /// Sets the lease, 100 ms to 24 h. By default it is the provider's. A provider that has no
    /// leases ignores it, and a reader who joins others shares their lease.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Span::of(lease);
        self
    }

    /// Keeps the lock for at least this long after a writer acquired it, up to 24 h, as
    /// [`DistributedLock::min_hold`](crate::DistributedLock::min_hold) does. For readers it is
    /// ignored: it would keep writers out with nobody reading. For a reader that becomes the writer
    /// it counts from that moment.
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

    /// Returns the lock's name.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// Tells who reads or writes now, and how many wait, as
    /// [`DistributedLock::inspect`](crate::DistributedLock::inspect) does. The readers of one
    /// process share one grant of the server, and count as one holder there.
    ///
    /// # Errors
    ///
    /// As [`DistributedLock::inspect`](crate::DistributedLock::inspect).
    pub async fn inspect(&self) -> Result<LockState, LockError> {
        inspect(self.slot()?).await
    }

    /// Acquires the lock beside other readers, and waits for it as long as it takes.
    ///
    /// A body that runs under the lock through the attribute, and reads, may read again: it joins
    /// its own grant at once.
    ///
    /// # Errors
    ///
    /// As [`DistributedLock::acquire`](crate::DistributedLock::acquire).
    /// [`WouldDeadlock`](crate::LockErrorKind::WouldDeadlock) if the calling task writes through
    /// the attribute, [`Unsupported`](crate::LockErrorKind::Unsupported) if the provider has no
    /// reader–writer locks, and [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if the name
    /// is in use as another kind of lock.
    pub async fn read(&self) -> Result<RwLockReadGuard, LockError> {
        self.acquire(Read, None).await
    }

    /// Acquires the lock beside other readers, and waits for it at most this long. A timeout of
    /// zero tries once.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and as
    /// [`DistributedLock::acquire_for`](crate::DistributedLock::acquire_for).
    pub async fn read_for(&self, timeout: Duration) -> Result<RwLockReadGuard, LockError> {
        self.acquire(Read, Some(timeout)).await
    }

    /// Acquires the lock beside other readers if nobody writes, or waits to write. Returns `None`
    /// otherwise.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn try_read(&self) -> Result<Option<RwLockReadGuard>, LockError> {
        self.try_read_for(Duration::ZERO).await
    }

    /// Acquires the lock beside other readers, and waits for it at most this long. Returns `None`
    /// if it was not free for readers by then.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn try_read_for(
        &self,
        timeout: Duration,
    ) -> Result<Option<RwLockReadGuard>, LockError> {
        or_none(self.read_for(timeout).await)
    }

    /// Acquires the lock beside other readers, with the right to
    /// [become the writer](RwLockUpgradeableReadGuard::upgrade), and waits for it as long as it
    /// takes. Only one reader has that right at a time; the next one waits, and those behind it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read). [`Unsupported`](crate::LockErrorKind::Unsupported) at once if the
    /// provider cannot do this, and [`WouldDeadlock`](crate::LockErrorKind::WouldDeadlock) if the
    /// calling task holds the lock through the attribute, to read or to write.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock_runtime::LockError> {
    /// use lock_runtime::DistributedRwLock;
    ///
    /// let prices = DistributedRwLock::new("prices");
    /// let looking = prices.upgradeable_read().await?;
    /// let outdated = true; // Others may read at the same time. Nobody writes.
    /// if outdated {
    ///     let writing = looking.upgrade().await?;
    ///     // What was read is still so: nobody has written in between.
    ///     writing.release().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn upgradeable_read(&self) -> Result<RwLockUpgradeableReadGuard, LockError> {
        self.acquire(Upgradeable, None).await
    }

    /// Acquires the lock beside other readers, with the right to become the writer, and waits for it
    /// at most this long. A timeout of zero tries once.
    ///
    /// # Errors
    ///
    /// As [`upgradeable_read`](Self::upgradeable_read), and as
    /// [`DistributedLock::acquire_for`](crate::DistributedLock::acquire_for).
    pub async fn upgradeable_read_for(
        &self,
        timeout: Duration,
    ) -> Result<RwLockUpgradeableReadGuard, LockError> {
        self.acquire(Upgradeable, Some(timeout)).await
    }

    /// Acquires the lock beside other readers, with the right to become the writer, if nobody has
    /// that right or writes, or waits to write. Returns `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`upgradeable_read`](Self::upgradeable_read).
    pub async fn try_upgradeable_read(
        &self,
    ) -> Result<Option<RwLockUpgradeableReadGuard>, LockError> {
        self.try_upgradeable_read_for(Duration::ZERO).await
    }

    /// Acquires the lock beside other readers, with the right to become the writer, and waits for it
    /// at most this long. Returns `None` if another holder was in the way by then.
    ///
    /// # Errors
    ///
    /// As [`upgradeable_read`](Self::upgradeable_read).
    pub async fn try_upgradeable_read_for(
        &self,
        timeout: Duration,
    ) -> Result<Option<RwLockUpgradeableReadGuard>, LockError> {
        or_none(self.upgradeable_read_for(timeout).await)
    }

    /// Acquires the lock alone, and waits for it as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read). [`WouldDeadlock`](crate::LockErrorKind::WouldDeadlock) if the
    /// calling task holds the lock through the attribute, to read or to write.
    pub async fn write(&self) -> Result<RwLockWriteGuard, LockError> {
        self.acquire(Write, None).await
    }

    /// Acquires the lock alone, and waits for it at most this long. A timeout of zero tries once.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and as
    /// [`DistributedLock::acquire_for`](crate::DistributedLock::acquire_for).
    pub async fn write_for(&self, timeout: Duration) -> Result<RwLockWriteGuard, LockError> {
        self.acquire(Write, Some(timeout)).await
    }

    /// Acquires the lock alone if it is free. Returns `None` if another holder was seen.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn try_write(&self) -> Result<Option<RwLockWriteGuard>, LockError> {
        self.try_write_for(Duration::ZERO).await
    }

    /// Acquires the lock alone, and waits for it at most this long. Returns `None` if another
    /// holder was seen, and still held the lock when the timeout passed.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn try_write_for(
        &self,
        timeout: Duration,
    ) -> Result<Option<RwLockWriteGuard>, LockError> {
        or_none(self.write_for(timeout).await)
    }

    /// Returns the lock as one of several, to be held beside other readers.
    pub fn reading(&self) -> LockPart {
        self.part(Wish::Read)
    }

    /// Returns the lock as one of several, to be held alone.
    pub fn writing(&self) -> LockPart {
        self.part(Wish::Write)
    }

    fn part(&self, wish: Wish) -> LockPart {
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

    async fn acquire<K: Kind>(
        &self,
        kind: K,
        timeout: Option<Duration>,
    ) -> Result<K::Guard, LockError> {
        let wanted = Wanted {
            lease: self.lease,
            timeout: Span::maybe(timeout),
            min_hold: self.min_hold,
            release: self.release,
            template: "",
            measured: true,
        };
        Acquiring::new(kind, &mut Some(self.slot()?), &wanted, &mut None).await
    }

    fn slot(&self) -> Result<SlotRef, LockError> {
        slot_of(
            &self.slot,
            self.source.as_ref(),
            &self.name,
            LockKind::RwLock,
        )
    }
}

impl fmt::Debug for DistributedRwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = self.source.as_ref().map(|source| source.name());
        f.debug_struct("DistributedRwLock")
            .field("name", &self.name)
            .field("provider", &provider.unwrap_or("default"))
            .field("lease", &self.lease.get())
            .field("min_hold", &self.min_hold.get())
            .field("release", &self.release)
            .finish()
    }
}
