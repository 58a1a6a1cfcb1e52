//! `DistributedMultiLock`: several named locks that are taken together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cached_slot::CachedSlot;
use crate::clock::Span;
use crate::error::LockError;
use crate::gate::{ReleaseMode, Wanted};
use crate::inspect::{count_left, inspect};
use crate::lock::{or_none, slot_of};
use crate::lock_part::LockPart;
use crate::name::LockName;
use crate::provider::{LockProvider, LockState};
use crate::several::{self, MultiLockGuard, Part, Wish, in_order};
use crate::source::Source;

/// Several named locks that are acquired together: all of them or none. To make one does nothing
/// and always succeeds. It is cheap to clone, and can be kept and acquired any number of times.
///
/// * **Order.** Whatever the order in which the names are written, the locks are taken in the order
///   of the names' bytes. So calls that take their locks in one step never wait for each other in a
///   circle. Calls inside each other still may, if the inner one wants a lower name than the outer
///   one holds; a timeout ends that.
/// * **Waiting.** One lock after another is waited for, each in the order of arrival. Those that are
///   held already are kept meanwhile, and whoever wants them waits. So keep long sections to other
///   names.
/// * **Names.** A name that is written twice is taken once: with the stronger mode, the higher
///   number of permits, the longer lease and `min_hold`.
/// * **One request.** Where the provider can, the locks that are free are taken in one request.
///   Redis can for mutexes.
///
/// All locks must be of one lock space: of one provider, or of providers for the same locks. There
/// may be 1 to 64.
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
/// use lock_runtime::{DistributedLock, DistributedMultiLock};
///
/// let accounts = DistributedMultiLock::new(["account:9", "account:7"]);
/// let guard = accounts.acquire().await?;
/// assert!(guard.names().eq(["account:7", "account:9"]));
/// assert!(DistributedLock::new("account:9").try_acquire().await?.is_none());
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DistributedMultiLock {
    parts: Vec<LockPart>,
    lease: Span,
    min_hold: Span,
}

impl DistributedMultiLock {
    /// Makes the locks of these names on the default provider, which is looked up at each
    /// acquisition.
    pub fn new(names: impl IntoIterator<Item = impl Into<LockName>>) -> Self {
        Self::make(None, names)
    }

    /// Makes the locks of these names on this provider.
    pub fn on(
        provider: Arc<dyn LockProvider>,
        names: impl IntoIterator<Item = impl Into<LockName>>,
    ) -> Self {
        Self::make(Some(Source::new(provider)), names)
    }

    fn make(
        source: Option<Arc<Source>>,
        names: impl IntoIterator<Item = impl Into<LockName>>,
    ) -> Self {
        let parts = names.into_iter().map(|name| LockPart {
            source: source.clone(),
            name: name.into(),
            wish: Wish::Exclusive,
            lease: Span::NONE,
            min_hold: Span::NONE,
            release: ReleaseMode::Confirmed,
            slot: CachedSlot::new(),
        });
        Self {
            parts: parts.collect(),
            lease: Span::NONE,
            min_hold: Span::NONE,
        }
    }

    /// Adds a lock, which keeps its own settings: a [`DistributedLock`](crate::DistributedLock),
    /// or what [`reading`](crate::DistributedRwLock::reading),
    /// [`writing`](crate::DistributedRwLock::writing) and
    /// [`taking`](crate::DistributedSemaphore::taking) return.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock_runtime::LockError> {
    /// use lock_runtime::{DistributedMultiLock, DistributedRwLock, DistributedSemaphore};
    ///
    /// let billing = DistributedMultiLock::new(["invoice:7"])
    ///     .and(DistributedRwLock::new("prices").reading())
    ///     .and(DistributedSemaphore::new("partner-calls", 3).taking(1));
    /// billing.acquire().await?.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn and(mut self, part: impl Into<LockPart>) -> Self {
        self.parts.push(part.into());
        self
    }

    /// Sets the lease of those locks that have none of their own, 100 ms to 24 h. By default it is
    /// the provider's. A provider that has no leases ignores it.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Span::of(lease);
        self
    }

    /// Keeps the locks for at least this long after all of them were acquired, up to 24 h, as
    /// [`DistributedLock::min_hold`](crate::DistributedLock::min_hold) does. It is for those locks
    /// that have no `min_hold` of their own. For readers it is ignored.
    #[must_use]
    pub fn min_hold(mut self, min_hold: Duration) -> Self {
        self.min_hold = Span::of(min_hold);
        self
    }

    /// Lets a release of every lock that was added so far return as soon as it has been handed to
    /// the provider's connection, as
    /// [`DistributedLock::release_in_background`](crate::DistributedLock::release_in_background)
    /// does.
    #[must_use]
    pub fn release_in_background(mut self) -> Self {
        for part in &mut self.parts {
            part.release = ReleaseMode::Background;
        }
        self
    }

    /// Returns the names of the locks, as they were written.
    pub fn names(&self) -> impl Iterator<Item = &LockName> {
        self.parts.iter().map(|part| &part.name)
    }

    /// Tells who holds each of the locks, in the order in which they are taken, as
    /// [`DistributedLock::inspect`](crate::DistributedLock::inspect) does. They are looked at one
    /// after another.
    ///
    /// # Errors
    ///
    /// As [`DistributedLock::inspect`](crate::DistributedLock::inspect), and
    /// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) as [`acquire`](Self::acquire).
    pub async fn inspect(&self) -> Result<Vec<(LockName, LockState)>, LockError> {
        let parts = self.parts.iter().map(|part| self.enter(part, None));
        let parts = in_order(parts.collect::<Result<_, _>>()?)?;
        let mut states = Vec::with_capacity(parts.len());
        for Part { slot, wish, .. } in parts {
            let name = slot.name.clone();
            let state = inspect(slot).await?;
            let state = match wish {
                Wish::Permits(permits) => count_left(state, permits.limit),
                _ => state,
            };
            states.push((name, state));
        }
        Ok(states)
    }

    /// Acquires all locks, and waits for them as long as it takes.
    ///
    /// A lock that is lost while another one is waited for is no loss of the caller's: all locks are
    /// given back and taken anew.
    ///
    /// # Errors
    ///
    /// As [`DistributedLock::acquire`](crate::DistributedLock::acquire). The error's
    /// [`name`](LockError::name) is that of the lock that was not to be had.
    ///
    /// * [`WouldDeadlock`](crate::LockErrorKind::WouldDeadlock) if the calling task holds one of the
    ///   locks through the attribute. No lock is taken then.
    /// * [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if there is no lock, if there are
    ///   more than 64, or if they are not of one lock space.
    pub async fn acquire(&self) -> Result<MultiLockGuard, LockError> {
        self.acquire_within(None).await
    }

    /// Acquires all locks, and waits for them at most this long, all together. A timeout of zero
    /// tries each once.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and as
    /// [`DistributedLock::acquire_for`](crate::DistributedLock::acquire_for).
    pub async fn acquire_for(&self, timeout: Duration) -> Result<MultiLockGuard, LockError> {
        self.acquire_within(Some(timeout)).await
    }

    /// Acquires all locks if they are free. Returns `None` if another holder of one was seen.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(&self) -> Result<Option<MultiLockGuard>, LockError> {
        self.try_acquire_for(Duration::ZERO).await
    }

    /// Acquires all locks, and waits for them at most this long, all together. Returns `None` if
    /// another holder of one was seen, and not all were to be had by then.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire_for(
        &self,
        timeout: Duration,
    ) -> Result<Option<MultiLockGuard>, LockError> {
        or_none(self.acquire_for(timeout).await)
    }

    async fn acquire_within(&self, timeout: Option<Duration>) -> Result<MultiLockGuard, LockError> {
        let parts = self.parts.iter().map(|part| self.enter(part, timeout));
        let mut parts = in_order(parts.collect::<Result<_, _>>()?)?;
        let or = |own: Span, default: Span| Span::maybe(own.get().or(default.get()));
        for Part { wanted, .. } in &mut parts {
            wanted.lease = or(wanted.lease, self.lease);
            wanted.min_hold = or(wanted.min_hold, self.min_hold);
        }
        several::acquire(&parts).await
    }

    /// Finds the slot of one lock.
    fn enter(&self, part: &LockPart, timeout: Option<Duration>) -> Result<Part, LockError> {
        let kind = part.wish.kind();
        Ok(Part {
            slot: slot_of(&part.slot, part.source.as_ref(), &part.name, kind)?,
            wish: part.wish,
            wanted: Wanted {
                lease: part.lease,
                timeout: Span::maybe(timeout),
                min_hold: part.min_hold,
                release: part.release,
                template: "",
                measured: true,
            },
        })
    }
}

impl fmt::Debug for DistributedMultiLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedMultiLock")
            .field("parts", &self.parts)
            .field("lease", &self.lease.get())
            .field("min_hold", &self.min_hold.get())
            .finish()
    }
}
