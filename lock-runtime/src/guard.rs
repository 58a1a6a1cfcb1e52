//! `LockGuard`, `LostSignal` and `FencingToken`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::sync::oneshot;

use crate::gate::{Release, SlotRef};
use crate::hold::Hold;
use crate::meter::Meter;
use crate::provider::LossReporter;
use crate::{LockError, LockErrorKind, LockName, keeper};

/// A number that grows strictly with every grant of a lock's name, across processes.
///
/// Store it with whatever the lock protects, and refuse a write whose token is below the highest
/// one seen: then even a holder that was frozen for longer than its lease, and does not know it
/// yet, can do no harm. See Martin Kleppmann, *How to do distributed locking* (2016).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// For providers: the token of this value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Its value.
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<u64> for FencingToken {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl From<FencingToken> for u64 {
    fn from(token: FencingToken) -> Self {
        token.0
    }
}

/// Holds a lock, renews its lease in the background, and releases it when dropped.
///
/// Dropping it works everywhere, on threads without a runtime, while a runtime shuts down and
/// while panicking: it hands the release to the library's own thread and does not wait for it.
/// To know that the lock is free again, and that it was held until now, use
/// [`release`](Self::release).
///
/// A guard that is leaked (`std::mem::forget`) is renewed until the process ends.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct LockGuard {
    slot: SlotRef,
    ticket: u64,
    token: Option<FencingToken>,
    /// `None` for a lock of this process alone, which cannot be lost.
    hold: Option<Arc<Hold>>,
    released: AtomicBool,
    meter: Option<Meter>,
}

/// The longest wait for the answer to a release: until the server ends the lease by itself, within
/// these bounds. The release goes on without it.
const SHORTEST_RELEASE: Duration = Duration::from_secs(1);
const LONGEST_RELEASE: Duration = Duration::from_secs(10);

/// The provider's answer to a release.
type Answer = oneshot::Receiver<Result<(), LockError>>;

impl LockGuard {
    pub(crate) fn new(
        slot: SlotRef,
        ticket: u64,
        token: Option<FencingToken>,
        hold: Option<Arc<Hold>>,
    ) -> Self {
        Self {
            slot,
            ticket,
            token,
            hold,
            released: AtomicBool::new(false),
            meter: None,
        }
    }

    pub(crate) fn measure(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// The lock's name.
    pub fn name(&self) -> &LockName {
        &self.slot.name
    }

    /// This grant's fencing token, where the provider gives one.
    pub fn fencing_token(&self) -> Option<FencingToken> {
        self.token
    }

    /// Whether the lock is no longer known to be held. Once true, it stays true; never false at
    /// or after the end of the lease.
    pub fn is_lost(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.is_lost())
    }

    /// A future that resolves when the lock is lost, at most 5 ms after its lease has ended. It
    /// need not resolve if the guard is released before that.
    pub fn lost(&self) -> LostSignal {
        LostSignal::new(self.hold.as_ref().map(|hold| hold.loss_reporter()))
    }

    /// Releases the lock and waits until the provider has confirmed it. If another caller in this
    /// process waits for it, it returns at once: the lock goes on to that caller, or to whoever is
    /// next on the server.
    ///
    /// # Errors
    ///
    /// [`Lost`](LockErrorKind::Lost) if the lock was lost before; any other kind if the provider
    /// could not be asked, in which case the lease ends by itself.
    ///
    /// # Cancel safety
    ///
    /// The release happens even if this future is dropped.
    pub async fn release(self) -> Result<(), LockError> {
        self.release_in_place().await
    }

    pub(crate) async fn release_in_place(&self) -> Result<(), LockError> {
        match self.start_release() {
            Ok(None) => Ok(()),
            Ok(Some(answer)) => {
                let answer = Box::pin(keeper::within(self.longest_release(), answer)).await;
                answer.and_then(Result::ok).unwrap_or_else(|| {
                    Err(LockError::new(LockErrorKind::ProviderUnavailable)
                        .with_name(self.name().clone())
                        .with_detail("the release was not answered"))
                })
            }
            Err(error) => Err(error),
        }
    }

    /// How long an answer to the release is worth waiting for.
    fn longest_release(&self) -> Duration {
        let end = self
            .hold
            .as_ref()
            .map(|hold| hold.server_s_end().remaining());
        end.unwrap_or(LONGEST_RELEASE)
            .clamp(SHORTEST_RELEASE, LONGEST_RELEASE)
    }

    /// Releases it, where that needs no waiting; else says where the answer comes.
    fn start_release(&self) -> Result<Option<Answer>, LockError> {
        // Nobody releases from two threads at once, and the ticket would not allow it twice.
        if self.released.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.released.store(true, Ordering::Relaxed);
        // Looked at first: a release that follows is a precaution, and tells nothing.
        let lost = self.is_lost();
        match self.give_back() {
            _ if lost => Err(self.loss()),
            Release::Done => Ok(None),
            Release::NotHeld => Err(self.loss()),
            Release::Asked(answer) => Ok(Some(answer)),
        }
    }

    fn give_back(&self) -> Release {
        if let Some(meter) = &self.meter {
            meter.released(self.is_lost());
        }
        let released = self.slot.release(self.ticket);
        if let Some(hold) = &self.hold {
            hold.let_go(self.ticket);
        }
        released
    }

    pub(crate) fn slot(&self) -> &SlotRef {
        &self.slot
    }

    pub(crate) fn hold(&self) -> Option<&Hold> {
        self.hold.as_deref()
    }

    pub(crate) fn loss(&self) -> LockError {
        match &self.hold {
            Some(hold) => hold.loss(),
            None => LockError::new(LockErrorKind::Lost).with_name(self.name().clone()),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if !*self.released.get_mut() {
            // A failure to release is logged by whoever learns of it.
            self.give_back();
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("name", self.name())
            .field("fencing_token", &self.token)
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// Resolves when the lock of the guard that made it is lost; see [`LockGuard::lost`].
///
/// It borrows nothing and can be cloned and sent to other tasks.
///
/// # Cancel safety
///
/// May be dropped, cloned and polled again at any time.
#[must_use = "a signal does nothing unless it is awaited"]
pub struct LostSignal {
    loss: Option<LossReporter>,
    /// Made at the first poll.
    notified: Option<Pin<Box<OwnedNotified>>>,
}

impl LostSignal {
    fn new(loss: Option<LossReporter>) -> Self {
        Self {
            loss,
            notified: None,
        }
    }
}

impl Future for LostSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(loss) = &this.loss else {
            return Poll::Pending;
        };
        let signal = loss.signal();
        let notified = this
            .notified
            .get_or_insert_with(|| Box::pin(signal.notified()));
        if signal.get().is_some() || notified.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Clone for LostSignal {
    fn clone(&self) -> Self {
        Self::new(self.loss.clone())
    }
}

impl fmt::Debug for LostSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LostSignal")
            .field("loss", &self.loss)
            .finish_non_exhaustive()
    }
}
