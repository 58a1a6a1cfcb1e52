//! `LockGuard`: holds a lock until it is released or dropped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::background;
use crate::clock::Timestamp;
use crate::end::{EndSignal, Loss, LostSignal};
use crate::error::{LockError, LockErrorKind};
use crate::gate::{Answer, Release, ReleaseMode, SlotRef};
use crate::lease::Lease;
use crate::name::LockName;
use crate::reentrancy::{self, Holding};
use crate::telemetry::metrics::Meter;
use crate::token::FencingToken;

/// A held lock. Its lease is renewed in the background, and it is released when it is dropped.
///
/// A guard may be dropped everywhere: on threads without a runtime, while a runtime shuts down and
/// while panicking. The drop hands the release to the library's own thread and does not wait for
/// it. To know that the lock is free again, and that it was held until now, use
/// [`release`](Self::release).
///
/// A guard that is leaked (`std::mem::forget`) is renewed until the process ends.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct LockGuard {
    // A guard is moved often, so it is kept small: what few guards need is in the slot.
    slot: SlotRef,
    /// The ticket, with the bits [`TOKEN`], [`RELEASED`] and [`IN_BACKGROUND`].
    ticket: AtomicU64,
    /// The fencing token, if the bit [`TOKEN`] is set.
    token: FencingToken,
    /// `None` for a lock of this process alone, which cannot be lost.
    lease: Option<Arc<Lease>>,
    meter: Meter,
}

/// The bit that says that the grant has a fencing token.
const TOKEN: u64 = 1 << 63;
/// The bit that says that the guard has given the lock back.
const RELEASED: u64 = 1 << 62;
/// The bit that says that a release is waited for only until it is handed to the connection.
const IN_BACKGROUND: u64 = 1 << 61;

/// The bounds of the wait for the answer to a release. Within them, the wait lasts until the server
/// ends the lease by itself. After the wait, the release goes on in the background.
const SHORTEST_RELEASE: Duration = Duration::from_secs(1);
const LONGEST_RELEASE: Duration = Duration::from_secs(10);

impl LockGuard {
    #[inline]
    pub(crate) fn new(
        slot: SlotRef,
        ticket: u64,
        token: Option<FencingToken>,
        lease: Option<Arc<Lease>>,
        release: ReleaseMode,
        meter: Meter,
    ) -> Self {
        let (token, flag) = match token {
            Some(token) => (token, TOKEN),
            None => (FencingToken::new(0), 0),
        };
        let in_background = match release {
            ReleaseMode::Confirmed => 0,
            ReleaseMode::Background => IN_BACKGROUND,
        };
        Self {
            slot,
            ticket: AtomicU64::new(ticket | flag | in_background),
            token,
            lease,
            meter,
        }
    }

    fn ticket(&self) -> u64 {
        self.ticket.load(Ordering::Relaxed) & !(TOKEN | RELEASED | IN_BACKGROUND)
    }

    fn release_mode(&self) -> ReleaseMode {
        match self.ticket.load(Ordering::Relaxed) & IN_BACKGROUND {
            0 => ReleaseMode::Confirmed,
            _ => ReleaseMode::Background,
        }
    }

    /// Returns the lock's name.
    pub fn name(&self) -> &LockName {
        &self.slot.name
    }

    /// Returns this grant's fencing token; `None` if the provider gives none.
    pub fn fencing_token(&self) -> Option<FencingToken> {
        let has_token = self.ticket.load(Ordering::Relaxed) & TOKEN != 0;
        has_token.then_some(self.token)
    }

    /// Tells whether the lock is no longer known to be held. Once true, it stays true. It is never
    /// false at or after the end of the lease's validity.
    pub fn is_lost(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_lost())
    }

    /// Returns a future that resolves when the lock is lost, at most 5 ms after its deadline.
    ///
    /// If the guard is released before that, the future need not resolve, and a task that only
    /// awaits it may wait for ever. [`ended`](Self::ended) resolves in both cases.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn rebuild_index() {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock_runtime::LockError> {
    /// use lock_runtime::{DistributedLock, LockErrorKind};
    ///
    /// let guard = DistributedLock::new("search-index").acquire().await?;
    /// tokio::select! {
    ///     () = guard.lost() => return Err(LockErrorKind::Lost.into()),
    ///     () = rebuild_index() => {}
    /// }
    /// guard.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn lost(&self) -> LostSignal {
        LostSignal::new(self.lease.as_ref().map(|lease| lease.loss_reporter()))
    }

    /// Returns a future that resolves when this grant ends, and says how: the lock was lost, or the
    /// guard was released or dropped.
    pub fn ended(&self) -> EndSignal {
        let loss = self.lease.as_ref().map(|lease| lease.loss_reporter());
        EndSignal::new(self.slot.end_of(self.ticket()), loss)
    }

    /// Releases the lock, and waits until the provider has confirmed it.
    ///
    /// If another caller in this process waits for the lock, this returns at once: the lock goes on
    /// to that caller, or to the next process on the server.
    ///
    /// The guard of a lock that is [released in the
    /// background](crate::DistributedLock::release_in_background) waits only until the release has
    /// been handed to the provider's connection.
    ///
    /// # Errors
    ///
    /// * [`Lost`](LockErrorKind::Lost) if the lock was lost before.
    /// * [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable) if the provider could not be
    ///   asked or did not answer, in which case the lock ends with its lease. The wait is as long
    ///   as the lease may still last on the server, but at least 1 s and at most 10 s.
    /// * [`Unsupported`](LockErrorKind::Unsupported) or
    ///   [`InvalidConfig`](LockErrorKind::InvalidConfig) if the provider answers so.
    ///
    /// # Cancel safety
    ///
    /// The release happens even if the future is dropped at any time: it goes on in the background.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock_runtime::LockError> {
    /// use lock_runtime::{DistributedLock, LockErrorKind};
    ///
    /// let guard = DistributedLock::new("invoice:7").acquire().await?;
    /// // … the work …
    /// match guard.release().await {
    ///     Ok(()) => println!("the lock was held until now, and is free"),
    ///     Err(error) if error.kind() == LockErrorKind::Lost => {
    ///         println!("another holder may have had the lock meanwhile");
    ///     }
    ///     Err(error) => println!("the lock ends with its lease: {error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn release(self) -> Result<(), LockError> {
        self.release_in_place().await
    }

    /// Does the same as [`release`](Self::release), with a guard that stays where it is.
    pub(crate) async fn release_in_place(&self) -> Result<(), LockError> {
        let Some(answer) = self.start_release()? else {
            return Ok(());
        };
        // Boxed, since this future is a part of every annotated call's.
        let (lease, mode) = (self.lease.as_ref(), self.release_mode());
        Box::pin(answered(&self.slot, lease, mode, answer)).await
    }

    /// Begins the release. Returns the provider's answer to come, if there is one to wait for.
    fn start_release(&self) -> Result<Option<Answer>, LockError> {
        // `Relaxed`, since the ticket itself can be given back only once.
        if self.ticket.fetch_or(RELEASED, Ordering::Relaxed) & RELEASED != 0 {
            return Ok(None);
        }
        // Read first, since the release of a lost lock is a precaution whose answer says nothing.
        let lost = self.is_lost();
        match self.give_back() {
            _ if lost => Err(self.loss()),
            Release::Done => Ok(None),
            Release::NotHeld => Err(self.loss()),
            Release::Asked(answer) => Ok(Some(answer)),
        }
    }

    /// Gives the ticket back, and ends the metrics of the hold.
    fn give_back(&self) -> Release {
        self.meter.released(|| self.is_lost());
        let ticket = self.ticket();
        let mode = self.release_mode();
        let released = self.slot.release(ticket, mode, || self.is_lost());
        if let Some(lease) = &self.lease
            && lease.guard_dropped(ticket)
        {
            self.slot.guard_is_gone(lease);
        }
        released
    }

    fn loss(&self) -> LockError {
        loss_of(&self.slot, self.lease.as_ref())
    }

    /// Keeps the lock for at least this long from now, even if the guard goes before.
    pub(crate) fn keep(&self, min_hold: Duration) {
        self.slot.keep(self.ticket(), min_hold);
    }
}

/// Waits for the answer to a release.
pub(crate) async fn answered(
    slot: &SlotRef,
    lease: Option<&Arc<Lease>>,
    mode: ReleaseMode,
    answer: Answer,
) -> Result<(), LockError> {
    let end = lease.map(|lease| lease.server_deadline().remaining());
    let limit = end
        .unwrap_or(LONGEST_RELEASE)
        .clamp(SHORTEST_RELEASE, LONGEST_RELEASE);
    let answer = match mode {
        ReleaseMode::Confirmed => background::within(limit, answer).await,
        ReleaseMode::Background => background::within(limit, answer.sent()).await,
    };
    answer.flatten().unwrap_or_else(|| {
        Err(LockError::new(LockErrorKind::ProviderUnavailable)
            .with_name(slot.name.clone())
            .with_detail("the release was not answered"))
    })
}

/// Returns the error that says how the lock was lost.
pub(crate) fn loss_of(slot: &SlotRef, lease: Option<&Arc<Lease>>) -> LockError {
    match lease {
        Some(lease) => lease.loss(),
        None => LockError::new(LockErrorKind::Lost).with_name(slot.name.clone()),
    }
}

/// What a body is polled with: the guard of any kind of lock.
pub(crate) trait Guard: Sized + Send + Sync + 'static {
    /// Returns the slot of the lock.
    fn slot(&self) -> &SlotRef;

    /// Returns the lease; `None` for a lock of this process alone, which cannot be lost.
    fn lease(&self) -> Option<&Arc<Lease>>;

    /// Returns the fencing token, if there is one.
    fn token(&self) -> Option<FencingToken>;

    /// Returns what the guard holds of its lock.
    fn holding(&self) -> Holding;

    /// Releases the lock, with a guard that stays where it is.
    fn release_in_place(&self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Tells whether the lock is no longer known to be held.
    #[inline]
    fn has_lost(&self) -> bool {
        self.lease().is_some_and(|lease| lease.is_lost())
    }

    /// Returns the error that says how the lock was lost.
    fn loss(&self) -> LockError {
        loss_of(self.slot(), self.lease())
    }

    /// Returns a future that resolves when the lock is lost; `None` if it cannot be.
    #[inline]
    fn until_lost(&self) -> Option<impl Future<Output = ()> + Send + Unpin> {
        self.lease()
            .map(|lease| Loss::new(Some(lease.loss_reporter())))
    }

    /// Stops renewing soon after this moment, at which the body is dropped.
    fn renew_until(&self, end: Timestamp) {
        if let Some(lease) = self.lease()
            // Others read under the same lease, for as long as they like.
            && self.holding() != Holding::Reading
        {
            lease.renew_until(end);
        }
    }

    /// Says until the result is dropped that the body is being polled.
    #[inline]
    fn polling(&self) -> impl Sized {
        reentrancy::enter(self.slot().address(), self.holding())
    }
}

impl Guard for LockGuard {
    #[inline]
    fn slot(&self) -> &SlotRef {
        &self.slot
    }

    #[inline]
    fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.as_ref()
    }

    fn token(&self) -> Option<FencingToken> {
        self.fencing_token()
    }

    #[inline]
    fn holding(&self) -> Holding {
        Holding::Alone
    }

    #[inline]
    fn release_in_place(&self) -> impl Future<Output = Result<(), LockError>> + Send {
        LockGuard::release_in_place(self)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if *self.ticket.get_mut() & RELEASED == 0 {
            // The answer is dropped too, so a failure is logged where it comes.
            self.give_back();
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("name", self.name())
            .field("fencing_token", &self.fencing_token())
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}
