//! `RwLockReadGuard`, `RwLockWriteGuard` and `SemaphorePermit`: the guards of locks that have more
//! than one mode, or more than one holder.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::end::LostSignal;
use crate::error::{LockError, LockErrorKind};
use crate::gate::{Release, ReleaseMode, Share, SlotRef, Upgraded};
use crate::guard::{Guard, answered, loss_of};
use crate::lease::Lease;
use crate::name::LockName;
use crate::provider::{Interest, LockMode};
use crate::reentrancy::Holding;
use crate::telemetry::metrics::Meter;
use crate::token::FencingToken;

/// A share of a lock, until it is given back.
pub(crate) struct Held {
    slot: SlotRef,
    share: Share,
    release: ReleaseMode,
    released: AtomicBool,
    meter: Meter,
}

impl Held {
    fn is_lost(&self) -> bool {
        self.share
            .lease
            .as_ref()
            .is_some_and(|lease| lease.is_lost())
    }

    fn lost(&self) -> LostSignal {
        LostSignal::new(self.share.lease.as_ref().map(|lease| lease.loss_reporter()))
    }

    fn loss(&self) -> LockError {
        loss_of(&self.slot, self.share.lease.as_ref())
    }

    async fn release_in_place(&self) -> Result<(), LockError> {
        // `Relaxed`, since the share itself can be given back only once.
        if self.released.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        // Read first, since the release of a lost lock is a precaution whose answer says nothing.
        let lost = self.is_lost();
        match self.give_back() {
            _ if lost => Err(self.loss()),
            Release::Done => Ok(()),
            Release::NotHeld => Err(self.loss()),
            // Boxed, since this future is a part of every annotated call's.
            Release::Asked(answer) => {
                let lease = self.share.lease.as_ref();
                Box::pin(answered(&self.slot, lease, self.release, answer)).await
            }
        }
    }

    /// Begins to make the writer of a reader that may become it.
    pub(crate) fn begin_upgrade(&self, waits: bool) -> Result<(), LockError> {
        match self.slot.begin_upgrade(&self.share, waits) {
            Err(error) if error.kind() == LockErrorKind::Lost => Err(self.loss()),
            answer => answer,
        }
    }

    /// Returns the call of an earlier upgrade of this reader, while it has not been taken back.
    pub(crate) fn earlier_upgrade(&self) -> Option<Interest> {
        self.slot.earlier_upgrade(&self.share)
    }

    /// Returns what has become of an upgrade, once that is known.
    pub(crate) fn poll_upgrade(&self, context: &Context<'_>) -> Poll<Result<Upgraded, LockError>> {
        self.slot.poll_upgrade(&self.share, context)
    }

    /// Makes the writer's guard of the reader's, for which the slot has the writer's share already.
    pub(crate) fn upgraded(
        self,
        (token, lease): Upgraded,
        meter: Meter,
    ) -> Result<RwLockWriteGuard, LockError> {
        self.meter.released(|| false);
        self.released.store(true, Ordering::Relaxed);
        let slot = self.slot.clone();
        let token = match &lease {
            Some(_) => token,
            None => slot.draw_shared_token(LockMode::Write),
        };
        let share = Share::new(LockMode::Write, token, lease, self.share.min_hold);
        if let Some(lease) = &share.lease
            && !lease.take()
        {
            let lost = lease.loss();
            slot.release_share(&share, self.release);
            meter.not_acquired(lost.kind());
            return Err(lost);
        }
        Ok(RwLockWriteGuard::new(
            slot,
            share,
            self.release,
            meter.acquired(),
        ))
    }

    pub(crate) fn slot(&self) -> &SlotRef {
        &self.slot
    }

    /// Gives the share back, and ends the metrics of the hold.
    fn give_back(&self) -> Release {
        self.meter.released(|| self.is_lost());
        self.slot.release_share(&self.share, self.release)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !*self.released.get_mut() {
            // The answer is dropped too, so a failure is logged where it comes.
            self.give_back();
        }
    }
}

/// Implements what the library needs of each guard.
macro_rules! guard {
    ($guard:ident, $token:expr, $holding:expr) => {
        impl $guard {
            pub(crate) fn new(
                slot: SlotRef,
                share: Share,
                release: ReleaseMode,
                meter: Meter,
            ) -> Self {
                Self(Held {
                    slot,
                    share,
                    release,
                    released: AtomicBool::new(false),
                    meter,
                })
            }
        }

        impl $guard {
            /// Keeps the lock for at least this long from now, even if the guard goes before.
            #[allow(dead_code, reason = "it is not for readers")]
            pub(crate) fn keep(&mut self, min_hold: Duration) {
                if !min_hold.is_zero() {
                    self.0.share.keep_until = Timestamp::now() + min_hold;
                }
            }
        }

        impl Guard for $guard {
            fn slot(&self) -> &SlotRef {
                &self.0.slot
            }

            fn lease(&self) -> Option<&Arc<Lease>> {
                self.0.share.lease.as_ref()
            }

            fn token(&self) -> Option<FencingToken> {
                $token(self)
            }

            fn holding(&self) -> Holding {
                $holding(self)
            }

            fn release_in_place(&self) -> impl Future<Output = Result<(), LockError>> + Send {
                self.0.release_in_place()
            }
        }
    };
}

/// A reader's share of a reader–writer lock. Other readers may hold theirs at the same time, and no
/// writer does.
///
/// Its lease is renewed in the background, and it is released when it is dropped. Readers of one
/// process share one grant of the server, which ends with the last of them. If that grant is lost,
/// it is lost for all of them.
///
/// It may be dropped everywhere, as a [`LockGuard`](crate::LockGuard).
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RwLockReadGuard(Held);

impl RwLockReadGuard {
    /// Returns the lock's name.
    pub fn name(&self) -> &LockName {
        &self.0.slot.name
    }

    /// Tells whether the lock is no longer known to be held. Once true, it stays true. It is never
    /// false at or after the end of the lease's validity.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// Returns a future that resolves when the lock is lost, at most 5 ms after its deadline.
    ///
    /// If the guard is released before that, the future need not resolve, and a task that only
    /// awaits it may wait for ever.
    pub fn lost(&self) -> LostSignal {
        self.0.lost()
    }

    /// Ends this reader's share, and waits until the provider has confirmed it, if the provider must
    /// be asked.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`](crate::LockGuard::release).
    ///
    /// # Cancel safety
    ///
    /// The release happens even if the future is dropped at any time: it goes on in the background.
    pub async fn release(self) -> Result<(), LockError> {
        self.0.release_in_place().await
    }

    /// Returns this grant's fencing token; `None` if the provider gives none. It is above those of
    /// all writers before, and below those of all writers after. Readers that share a grant share
    /// its token.
    pub fn fencing_token(&self) -> Option<FencingToken> {
        self.0.share.token
    }
}

guard!(
    RwLockReadGuard,
    RwLockReadGuard::fencing_token,
    |_: &RwLockReadGuard| { Holding::Reading }
);

impl fmt::Debug for RwLockReadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockReadGuard")
            .field("name", self.name())
            .field("fencing_token", &self.fencing_token())
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// The share of a reader who may become the writer. Plain readers may hold theirs at the same time,
/// and no writer does, nor another reader who may become the writer.
///
/// [`upgrade`](Self::upgrade) makes the writer of it, without anybody writing in between. As there
/// is only one such reader, two that want to upgrade never wait for each other.
///
/// It has a grant of the server of its own. Its lease is renewed in the background, and it is
/// released when it is dropped. It may be dropped everywhere, as a [`LockGuard`](crate::LockGuard).
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RwLockUpgradeableReadGuard(pub(crate) Held);

impl RwLockUpgradeableReadGuard {
    /// Returns the lock's name.
    pub fn name(&self) -> &LockName {
        &self.0.slot.name
    }

    /// Tells whether the lock is no longer known to be held. Once true, it stays true. It is never
    /// false at or after the end of the lease's validity.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// Returns a future that resolves when the lock is lost, at most 5 ms after its deadline.
    ///
    /// If the guard is released or upgraded before that, the future need not resolve, and a task
    /// that only awaits it may wait for ever. The loss of the writer's hold is told by the writer's
    /// guard.
    pub fn lost(&self) -> LostSignal {
        self.0.lost()
    }

    /// Ends this reader's share, and waits until the provider has confirmed it, if the provider must
    /// be asked.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`](crate::LockGuard::release).
    ///
    /// # Cancel safety
    ///
    /// The release happens even if the future is dropped at any time: it goes on in the background.
    pub async fn release(self) -> Result<(), LockError> {
        self.0.release_in_place().await
    }

    /// Returns this grant's fencing token; `None` if the provider gives none. It is above those of
    /// all writers before, and below those of all writers after, this one included if it becomes
    /// the writer.
    pub fn fencing_token(&self) -> Option<FencingToken> {
        self.0.share.token
    }
}

guard!(
    RwLockUpgradeableReadGuard,
    RwLockUpgradeableReadGuard::fencing_token,
    |guard: &RwLockUpgradeableReadGuard| guard.0.share.holding()
);

impl fmt::Debug for RwLockUpgradeableReadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockUpgradeableReadGuard")
            .field("name", self.name())
            .field("fencing_token", &self.fencing_token())
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// The writer's hold of a reader–writer lock. Nobody else holds any of it.
///
/// Its lease is renewed in the background, and it is released when it is dropped. It may be dropped
/// everywhere, as a [`LockGuard`](crate::LockGuard).
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RwLockWriteGuard(Held);

impl RwLockWriteGuard {
    /// Returns the lock's name.
    pub fn name(&self) -> &LockName {
        &self.0.slot.name
    }

    /// Tells whether the lock is no longer known to be held. Once true, it stays true. It is never
    /// false at or after the end of the lease's validity.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// Returns a future that resolves when the lock is lost, at most 5 ms after its deadline.
    ///
    /// If the guard is released before that, the future need not resolve, and a task that only
    /// awaits it may wait for ever.
    pub fn lost(&self) -> LostSignal {
        self.0.lost()
    }

    /// Releases the lock, and waits until the provider has confirmed it, if the provider must be
    /// asked.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`](crate::LockGuard::release).
    ///
    /// # Cancel safety
    ///
    /// The release happens even if the future is dropped at any time: it goes on in the background.
    pub async fn release(self) -> Result<(), LockError> {
        self.0.release_in_place().await
    }

    /// Returns this grant's fencing token, which is above that of every earlier grant; `None` if
    /// the provider gives none.
    pub fn fencing_token(&self) -> Option<FencingToken> {
        self.0.share.token
    }
}

guard!(
    RwLockWriteGuard,
    RwLockWriteGuard::fencing_token,
    |_: &RwLockWriteGuard| Holding::Alone
);

impl fmt::Debug for RwLockWriteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockWriteGuard")
            .field("name", self.name())
            .field("fencing_token", &self.fencing_token())
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// One or more permits of a semaphore, taken together.
///
/// Their lease is renewed in the background, and they are given back when this is dropped. It may
/// be dropped everywhere, as a [`LockGuard`](crate::LockGuard).
///
/// There is no fencing token: of several valid holders, no comparison of numbers tells which one is
/// stale.
#[must_use = "the permits are given back as soon as this is dropped"]
pub struct SemaphorePermit(Held);

impl SemaphorePermit {
    /// Returns the lock's name.
    pub fn name(&self) -> &LockName {
        &self.0.slot.name
    }

    /// Tells whether the permits are no longer known to be held. Once true, it stays true. It is
    /// never false at or after the end of the lease's validity.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// Returns a future that resolves when the permits are lost, at most 5 ms after their deadline.
    ///
    /// If they are released before that, the future need not resolve, and a task that only awaits
    /// it may wait for ever.
    pub fn lost(&self) -> LostSignal {
        self.0.lost()
    }

    /// Gives the permits back, and waits until the provider has confirmed it, if the provider must
    /// be asked.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`](crate::LockGuard::release).
    ///
    /// # Cancel safety
    ///
    /// The release happens even if the future is dropped at any time: it goes on in the background.
    pub async fn release(self) -> Result<(), LockError> {
        self.0.release_in_place().await
    }
}

guard!(
    SemaphorePermit,
    |_: &SemaphorePermit| None,
    |permit: &SemaphorePermit| permit.0.share.holding()
);

impl fmt::Debug for SemaphorePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphorePermit")
            .field("name", self.name())
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_go_to_other_threads() {
        fn assert<T: Send + Sync>() {}
        assert::<RwLockReadGuard>();
        assert::<RwLockUpgradeableReadGuard>();
        assert::<RwLockWriteGuard>();
        assert::<SemaphorePermit>();
    }
}
