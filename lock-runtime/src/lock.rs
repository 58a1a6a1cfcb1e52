//! `DistributedLock`: a named lock, for use without the attribute.

use std::cell::OnceCell;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::acquire::Acquiring;
use crate::body::{Begun, GuardCell, Kept, run_in};
use crate::cached_slot::CachedSlot;
use crate::clock::Span;
use crate::error::LockError;
use crate::gate::{ReleaseMode, SlotRef, Wanted};
use crate::guard::LockGuard;
use crate::inspect::inspect;
use crate::kind::{Exclusive, Kind};
use crate::lock_part::LockPart;
use crate::name::LockName;
use crate::provider::{LockKind, LockProvider, LockState};
use crate::registry;
use crate::several::Wish;
use crate::source::Source;
use crate::telemetry::spans::Call;

/// A named lock. To make one does nothing and always succeeds. It is cheap to clone, and can be
/// kept and acquired any number of times.
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
    source: Option<Arc<Source>>,
    name: LockName,
    lease: Span,
    min_hold: Span,
    release: ReleaseMode,
    slot: CachedSlot,
}

impl DistributedLock {
    /// Makes the lock of this name on the default provider, which is looked up at each acquisition.
    pub fn new(name: impl Into<LockName>) -> Self {
        Self {
            source: None,
            name: name.into(),
            lease: Span::NONE,
            min_hold: Span::NONE,
            release: ReleaseMode::Confirmed,
            slot: CachedSlot::new(),
        }
    }

    /// Makes the lock of this name on this provider.
    pub fn on(provider: Arc<dyn LockProvider>, name: impl Into<LockName>) -> Self {
        Self {
            source: Some(Source::new(provider)),
            name: name.into(),
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

    /// Keeps the lock for at least this long after it was acquired, up to 24 h. By default, and
    /// with zero, the lock is free as soon as its guard is gone.
    ///
    /// It is for jobs that take less time than the clocks of their replicas differ by: without it,
    /// two replicas would run the job one after the other.
    ///
    /// * The lock stays even if its guard is dropped or its body ends before, however the body
    ///   ended. After a loss there is nothing to keep.
    /// * A release of the guard does not wait for the end of `min_hold`.
    /// * On Redis the lock stays even if the process ends. Elsewhere the end of the process, or
    ///   [`shutdown`](crate::shutdown()), frees the lock.
    /// * `min_hold` may be longer than the lease.
    #[must_use]
    pub fn min_hold(mut self, min_hold: Duration) -> Self {
        self.min_hold = Span::of(min_hold);
        self
    }

    /// Lets a release return as soon as it has been handed to the provider's connection, and not
    /// only when the provider has confirmed it. This saves the caller one trip to the server.
    ///
    /// It concerns [`LockGuard::release`], and the methods that run a body. A guard that is dropped
    /// does not wait in any case.
    ///
    /// * This process finds the lock free at once. Others may find it held for one more trip.
    /// * The release reaches the server even if the process ends right afterwards, unless the
    ///   connection breaks at that moment. Then the lock ends with its lease.
    /// * A release that fails later is logged, and the lock ends with its lease. A loss that is
    ///   known before is returned as ever.
    /// * Where the connection is missing, the call waits as long as it does for an answer.
    #[must_use]
    pub fn release_in_background(mut self) -> Self {
        self.release = ReleaseMode::Background;
        self
    }

    /// Returns the lock's name.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// Tells who holds the lock now, and how many wait for it.
    ///
    /// It is for people, logs and dashboards. Nothing may be decided by it, since the next moment
    /// it may be wrong. Those who wait in one process may count as one.
    ///
    /// # Errors
    ///
    /// * [`Unsupported`](crate::LockErrorKind::Unsupported) if the provider
    ///   [cannot tell](crate::Capabilities::holders).
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable) if the server does not
    ///   answer within the provider's `response_timeout`.
    /// * [`InvalidName`](crate::LockErrorKind::InvalidName),
    ///   [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) and
    ///   [`NoProvider`](crate::LockErrorKind::NoProvider) as [`acquire`](Self::acquire). So what
    ///   stands in the lock's place and is no lock is an error, and no holder.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any await.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock_runtime::LockError> {
    /// # use lock_runtime::DistributedLock;
    /// let lock = DistributedLock::new("invoice:7");
    /// let _guard = lock.acquire().await?;
    /// let state = lock.inspect().await?;
    /// assert!(state.holders()[0].is_this_process());
    /// assert_eq!(state.waiters(), Some(0));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn inspect(&self) -> Result<LockState, LockError> {
        inspect(self.slot()?).await
    }

    /// Acquires the lock, and waits for it as long as it takes.
    ///
    /// A guard does not stop the caller's work when the lock is lost. Watch its
    /// [`lost`](LockGuard::lost), or use [`run`](Self::run), which drops the body.
    ///
    /// # Errors
    ///
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable) if the server cannot be
    ///   reached or does not answer, after the provider's own patience, or if
    ///   [`shutdown`](crate::shutdown()) ends the wait.
    /// * [`WouldDeadlock`](crate::LockErrorKind::WouldDeadlock) if the calling task holds the lock
    ///   through the attribute or [`run`](Self::run). A guard that it holds is not noticed.
    /// * [`InvalidName`](crate::LockErrorKind::InvalidName),
    ///   [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if the name, the lease or the
    ///   `min_hold` breaks its rule.
    /// * [`NoProvider`](crate::LockErrorKind::NoProvider) if none is registered and the in-process
    ///   fallback is forbidden.
    /// * [`Unsupported`](crate::LockErrorKind::Unsupported) if the provider cannot do what is
    ///   asked.
    pub async fn acquire(&self) -> Result<LockGuard, LockError> {
        let wanted = self.wanted(None);
        Acquiring::new(Exclusive, &mut Some(self.slot()?), &wanted, &mut None).await
    }

    /// Acquires the lock, and waits for it at most this long.
    ///
    /// The caller has an answer at most 50 ms after the timeout, whatever the server does. A
    /// timeout of zero tries once: then the bound is one answer of the server, which takes at most
    /// the provider's `response_timeout`.
    ///
    /// # Errors
    ///
    /// * [`TimedOut`](crate::LockErrorKind::TimedOut) if another holder was seen, and still held
    ///   the lock when the timeout passed.
    /// * [`Contended`](crate::LockErrorKind::Contended) if the timeout is zero and another holder
    ///   was seen.
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable) if the server could not
    ///   tell whether the lock is held.
    /// * The other kinds as [`acquire`](Self::acquire).
    pub async fn acquire_for(&self, timeout: Duration) -> Result<LockGuard, LockError> {
        let wanted = self.wanted(Some(timeout));
        Acquiring::new(Exclusive, &mut Some(self.slot()?), &wanted, &mut None).await
    }

    /// Acquires the lock if it is free. Returns `None` if another holder was seen.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, LockError> {
        self.try_acquire_for(Duration::ZERO).await
    }

    /// Acquires the lock, and waits for it at most this long. Returns `None` if another holder was
    /// seen, and still held the lock when the timeout passed.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire_for(&self, timeout: Duration) -> Result<Option<LockGuard>, LockError> {
        or_none(self.acquire_for(timeout).await)
    }

    /// Runs the body while the lock is held, and waits for the lock as long as it takes.
    ///
    /// Nothing of the body runs before the lock is held. The body is polled in the caller's own
    /// task. If the lock is lost, the body is dropped at once, in place.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`Lost`](crate::LockErrorKind::Lost) if the body was
    /// dropped half-way.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock_runtime::LockError> {
    /// # use lock_runtime::DistributedLock;
    /// let total = DistributedLock::new("invoice:7").run(async { 6 * 7 }).await?;
    /// assert_eq!(total, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run<T>(&self, body: impl Future<Output = T>) -> Result<T, LockError> {
        self.run_in(None, body).await
    }

    /// Runs the body as [`run`](Self::run) does, and waits for the lock at most this long.
    ///
    /// # Errors
    ///
    /// As [`acquire_for`](Self::acquire_for), and [`Lost`](crate::LockErrorKind::Lost) if the body
    /// was dropped half-way.
    pub async fn run_for<T>(
        &self,
        timeout: Duration,
        body: impl Future<Output = T>,
    ) -> Result<T, LockError> {
        self.run_in(Some(timeout), body).await
    }

    /// Runs the body as [`run`](Self::run) does if the lock is free. Returns `None` if another
    /// holder was seen.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn try_run<T>(&self, body: impl Future<Output = T>) -> Result<Option<T>, LockError> {
        or_none(self.run_in(Some(Duration::ZERO), body).await)
    }

    /// Runs a body that needs the guard, for its fencing token, as [`run`](Self::run) does.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock_runtime::LockError> {
    /// # use lock_runtime::DistributedLock;
    /// let lock = DistributedLock::new("invoice:7");
    /// let token = lock.run_with(async |guard| guard.fencing_token()).await?;
    /// assert!(token.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_with<T>(
        &self,
        body: impl AsyncFnOnce(&LockGuard) -> T,
    ) -> Result<T, LockError> {
        let slot = GuardCell::new();
        let body = async { Ok(body(slot.guard()).await) };
        let body = pin!(Some(body));
        run_in::<_, _, Kept<_>, _>(self.begin(None), &slot, body, Err).await
    }

    async fn run_in<T>(
        &self,
        timeout: Option<Duration>,
        body: impl Future<Output = T>,
    ) -> Result<T, LockError> {
        let body = async { Ok(body.await) };
        let body = pin!(Some(body));
        run_in::<_, _, Kept<_>, _>(self.begin(timeout), OnceCell::new(), body, Err).await
    }

    fn begin(&self, timeout: Option<Duration>) -> Begun<Exclusive> {
        let call = Call::new("", &self.name, Exclusive::MODE);
        let slot = self.slot();
        if let Ok(slot) = &slot {
            call.provider(|| slot.source().name());
        }
        Begun {
            call,
            goal: Exclusive,
            entered: slot.map(|slot| (Some(slot), self.wanted(timeout))),
            max_hold: None,
        }
    }

    #[inline]
    fn wanted(&self, timeout: Option<Duration>) -> Wanted {
        Wanted {
            lease: self.lease,
            timeout: Span::maybe(timeout),
            min_hold: self.min_hold,
            release: self.release,
            template: "",
            measured: true,
        }
    }

    #[inline]
    fn slot(&self) -> Result<SlotRef, LockError> {
        slot_of(
            &self.slot,
            self.source.as_ref(),
            &self.name,
            LockKind::Mutex,
        )
    }
}

impl From<DistributedLock> for LockPart {
    fn from(lock: DistributedLock) -> Self {
        LockPart {
            source: lock.source,
            name: lock.name,
            wish: Wish::Exclusive,
            lease: lock.lease,
            min_hold: lock.min_hold,
            release: lock.release,
            slot: lock.slot,
        }
    }
}

impl fmt::Debug for DistributedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = self.source.as_ref().map(|source| source.name());
        f.debug_struct("DistributedLock")
            .field("name", &self.name)
            .field("provider", &provider.unwrap_or("default"))
            .field("lease", &self.lease.get())
            .field("min_hold", &self.min_hold.get())
            .field("release", &self.release)
            .finish()
    }
}

/// Returns the slot of this name on the provider, or on the default one.
#[inline]
pub(crate) fn slot_of(
    cached: &CachedSlot,
    source: Option<&Arc<Source>>,
    name: &LockName,
    kind: LockKind,
) -> Result<SlotRef, LockError> {
    let source = match source {
        Some(source) => source,
        None => registry::default()?,
    };
    cached.get(source, name, kind)
}

/// Turns contention into `None`.
pub(crate) fn or_none<T>(result: Result<T, LockError>) -> Result<Option<T>, LockError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_contention() => Ok(None),
        Err(error) => Err(error),
    }
}
