//! `MultiLockGuard`: holds several locks until it is released or dropped.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::part::PartGuard;
use crate::call_queue::Gathering;
use crate::clock::Timestamp;
use crate::end::LostSignal;
use crate::error::LockError;
use crate::future::join_all;
use crate::gate::SlotRef;
use crate::guard::Guard;
use crate::lease::Lease;
use crate::name::LockName;
use crate::reentrancy::{self, Holding};
use crate::telemetry::metrics::Meter;
use crate::token::FencingToken;

/// Several held locks, in the order in which all processes take them: that of the bytes of their
/// names. Each name is there once.
///
/// The lease of each is renewed in the background, and all are released when this is dropped. It
/// may be dropped everywhere, as a [`LockGuard`](crate::LockGuard).
#[must_use = "the locks are released as soon as the guard is dropped"]
pub struct MultiLockGuard {
    held: Held,
    released: AtomicBool,
    meter: Meter,
}

impl MultiLockGuard {
    pub(super) fn new(held: Held, meter: Meter) -> Self {
        Self {
            held,
            released: AtomicBool::new(false),
            meter,
        }
    }

    /// Returns the names of the locks, in the order in which they were taken.
    pub fn names(&self) -> impl Iterator<Item = &LockName> {
        self.held.0.iter().map(PartGuard::name)
    }

    /// Returns the fencing token of the lock of this name; `None` if it has none, or is not one of
    /// these locks.
    pub fn fencing_token(&self, name: impl AsRef<str>) -> Option<FencingToken> {
        let name = name.as_ref();
        let mut parts = self.held.0.iter();
        parts.find(|part| part.name().as_str() == name)?.token()
    }

    /// Returns the fencing tokens of the locks that have one, with their names.
    pub fn tokens(&self) -> impl Iterator<Item = (&LockName, FencingToken)> {
        let parts = self.held.0.iter();
        parts.filter_map(|part| Some((part.name(), part.token()?)))
    }

    /// Tells whether any of the locks is no longer known to be held. Once true, it stays true. It
    /// is never false at or after the end of one lease's validity.
    pub fn is_lost(&self) -> bool {
        self.held.lost().is_some()
    }

    /// Returns a future that resolves when the first of the locks is lost, at most 5 ms after its
    /// deadline.
    ///
    /// If the guard is released before that, the future need not resolve, and a task that only
    /// awaits it may wait for ever.
    pub fn lost(&self) -> LostSignal {
        self.held.until_lost()
    }

    /// Releases all locks, in the order opposite to that in which they were taken, and waits until
    /// the provider has confirmed it. One that fails does not keep the others from their release.
    ///
    /// # Errors
    ///
    /// The first error, in that order: as [`LockGuard::release`](crate::LockGuard::release).
    ///
    /// # Cancel safety
    ///
    /// The releases happen even if the future is dropped at any time: they go on in the background.
    pub async fn release(self) -> Result<(), LockError> {
        self.release_all().await
    }

    async fn release_all(&self) -> Result<(), LockError> {
        // `Relaxed`, since each lock itself can be given back only once.
        if self.released.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.meter.released(|| self.is_lost());
        // Boxed, since this future is a part of every annotated call's.
        Box::pin(self.held.release()).await
    }
}

impl Drop for MultiLockGuard {
    fn drop(&mut self) {
        if !*self.released.get_mut() {
            self.meter.released(|| self.held.lost().is_some());
        }
    }
}

impl Guard for MultiLockGuard {
    fn slot(&self) -> &SlotRef {
        match self.held.0.first() {
            Some(first) => first.slot(),
            None => unreachable!("there is at least one lock"),
        }
    }

    fn lease(&self) -> Option<&Arc<Lease>> {
        None
    }

    fn token(&self) -> Option<FencingToken> {
        None
    }

    fn holding(&self) -> Holding {
        Holding::Alone
    }

    fn release_in_place(&self) -> impl Future<Output = Result<(), LockError>> + Send {
        self.release_all()
    }

    fn has_lost(&self) -> bool {
        self.is_lost()
    }

    fn loss(&self) -> LockError {
        match self.held.lost() {
            Some(part) => part.loss(),
            None => unreachable!("one of the locks is lost"),
        }
    }

    fn until_lost(&self) -> Option<impl Future<Output = ()> + Send + Unpin> {
        Some(self.lost())
    }

    fn renew_until(&self, end: Timestamp) {
        self.held.0.iter().for_each(|part| part.renew_until(end));
    }

    fn polling(&self) -> impl Sized {
        let parts = self.held.0.iter();
        reentrancy::enter_several(parts.map(|part| (part.slot().address(), part.holding())))
    }
}

impl fmt::Debug for MultiLockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.held.0.iter();
        let tokens: Vec<_> = parts.map(|part| (part.name(), part.token())).collect();
        f.debug_struct("MultiLockGuard")
            .field("locks", &tokens)
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// Locks that are held, in the order in which they were taken. When they are dropped, they are
/// given back in the opposite order.
#[derive(Default)]
pub(super) struct Held(pub(super) Vec<PartGuard>);

impl Held {
    /// Returns the first lock that is lost, if one is.
    pub(super) fn lost(&self) -> Option<&PartGuard> {
        self.0.iter().find(|part| part.has_lost())
    }

    /// Returns a future that resolves when one of the locks is lost.
    pub(super) fn until_lost(&self) -> LostSignal {
        LostSignal::of_several(self.0.iter().filter_map(PartGuard::loss_reporter))
    }

    /// Begins all releases at the first poll, and waits for their answers. Returns the first error.
    async fn release(&self) -> Result<(), LockError> {
        let parts = self.0.iter().rev();
        let releases = parts.map(|part| Box::pin(part.release_in_place()) as _);
        let mut releases = pin!(join_all(releases.collect()));
        let mut is_first = true;
        let answers = poll_fn(|context| {
            // What becomes due now goes together.
            let _together = std::mem::take(&mut is_first).then(|| self.gather());
            releases.as_mut().poll(context)
        });
        answers.await.into_iter().collect()
    }

    /// Has the calls that become due from now on go together, until the result is dropped.
    fn gather(&self) -> Option<Gathering> {
        let calls = self.0.first()?.slot().source().calls();
        calls.map(Gathering::begin)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _together = self.gather();
        while let Some(last) = self.0.pop() {
            drop(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_go_to_other_threads() {
        fn assert<T: Send + Sync>() {}
        assert::<MultiLockGuard>();
    }
}
