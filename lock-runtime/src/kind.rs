//! What differs between a mutex, the two sides of a reader–writer lock, and a semaphore, for the
//! caller's side of an acquisition.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::gate::{Arrival, Look, Share, SlotRef, Wanted};
use crate::guard::{Guard, LockGuard};
use crate::lease::Lease;
use crate::provider::{Capabilities, Interest, LockKind, LockMode};
use crate::reentrancy;
use crate::shared_guard::{
    RwLockReadGuard, RwLockUpgradeableReadGuard, RwLockWriteGuard, SemaphorePermit,
};
use crate::source::Facts;
use crate::telemetry::metrics::Meter;
use crate::token::FencingToken;

/// What a guard is made of: the ticket, the token and the lease. A lock of this process alone has
/// no lease.
pub(crate) type Won = (u64, Option<FencingToken>, Option<Arc<Lease>>);

/// What a caller wants of a lock: the mutex, one side of a reader–writer lock, or permits.
pub(crate) trait Kind: Copy + Send + Sync + Unpin + 'static {
    /// The guard of what was acquired.
    type Guard: Guard;
    /// What an arrival gets that need not wait.
    type Free;

    /// The primitive that the name stands for.
    const KIND: LockKind;
    /// The mode as logs and metrics show it; empty for a mutex.
    const MODE: &'static str;

    /// Refuses what can be refused without a look at the queue: values that are wrong, what the
    /// provider cannot do, and a wait of the task for itself.
    fn check(self, slot: &SlotRef, facts: &Facts) -> Result<(), LockError>;

    /// Takes the lock if no wait is needed. Else takes a place in the queue.
    fn arrive(
        self,
        slot: &SlotRef,
        wanted: &Wanted,
        until: impl FnOnce() -> Timestamp,
        in_process: bool,
        waker: &mut Option<Waker>,
    ) -> Result<Arrival<Self::Free>, LockError>;

    /// Completes what an arrival got that need not wait.
    fn won(self, slot: &SlotRef, free: Self::Free) -> Won;

    /// Returns the token of a grant of this process alone. If that panics, the grant is given back.
    fn draw_token(self, slot: &SlotRef, ticket: u64) -> Option<FencingToken>;

    /// Looks again whether the task that is being polled waits for itself. A reader may find that
    /// it has a share already.
    fn look_inside(self, slot: &SlotRef, ticket: u64) -> Result<Option<Won>, LockError>;

    /// Takes a lock of this process alone that was passed to the ticket. It does not look for
    /// anything else.
    fn takes_in_process(self, slot: &SlotRef, ticket: u64) -> bool;

    /// Looks at what has become of a ticket, and keeps the waker if there is nothing new.
    fn poll_ticket(
        self,
        slot: &SlotRef,
        ticket: u64,
        new: bool,
        context: &Context<'_>,
    ) -> Poll<Result<Look, LockError>>;

    /// Gives back a grant that had ended before it could be used.
    fn give_back_unused(self, slot: &SlotRef, ticket: u64, lease: Arc<Lease>);

    /// Gives a ticket back, whatever has become of it.
    fn leave(self, slot: &SlotRef, ticket: u64) -> Option<Interest>;

    /// Returns why a waiter whose timeout has passed did not get the lock.
    fn timed_out(self, slot: &SlotRef, ticket: u64, timeout: Duration) -> LockError;

    /// Makes the guard of what was acquired.
    fn guard(self, slot: SlotRef, wanted: &Wanted, won: Won, meter: Meter) -> Self::Guard;
}

/// The mutex.
#[derive(Clone, Copy)]
pub struct Exclusive;

impl Kind for Exclusive {
    type Guard = LockGuard;
    type Free = u64;

    const KIND: LockKind = LockKind::Mutex;
    const MODE: &'static str = "";

    #[inline]
    fn check(self, slot: &SlotRef, _: &Facts) -> Result<(), LockError> {
        if reentrancy::holds(slot.address()) {
            return Err(slot.error(LockErrorKind::WouldDeadlock));
        }
        Ok(())
    }

    #[inline]
    fn arrive(
        self,
        slot: &SlotRef,
        wanted: &Wanted,
        until: impl FnOnce() -> Timestamp,
        in_process: bool,
        waker: &mut Option<Waker>,
    ) -> Result<Arrival, LockError> {
        slot.arrive(wanted, until, in_process, waker)
    }

    #[inline]
    fn won(self, slot: &SlotRef, ticket: u64) -> Won {
        (ticket, self.draw_token(slot, ticket), None)
    }

    #[inline]
    fn draw_token(self, slot: &SlotRef, ticket: u64) -> Option<FencingToken> {
        struct GivesBack<'a>(&'a SlotRef, u64);
        impl Drop for GivesBack<'_> {
            fn drop(&mut self) {
                self.0.give_back_ticket(self.1);
            }
        }
        let gives_back = GivesBack(slot, ticket);
        let token = slot.source().provider.grant_in_process();
        std::mem::forget(gives_back);
        token
    }

    #[inline]
    fn look_inside(self, slot: &SlotRef, _: u64) -> Result<Option<Won>, LockError> {
        match reentrancy::holds(slot.address()) {
            true => Err(slot.error(LockErrorKind::WouldDeadlock)),
            false => Ok(None),
        }
    }

    #[inline]
    fn takes_in_process(self, slot: &SlotRef, ticket: u64) -> bool {
        slot.takes_in_process(ticket)
    }

    #[inline]
    fn poll_ticket(
        self,
        slot: &SlotRef,
        ticket: u64,
        new: bool,
        context: &Context<'_>,
    ) -> Poll<Result<Look, LockError>> {
        slot.poll_ticket(ticket, new, context)
    }

    fn give_back_unused(self, slot: &SlotRef, ticket: u64, lease: Arc<Lease>) {
        slot.give_back_ticket(ticket);
        lease.guard_dropped(ticket);
    }

    fn leave(self, slot: &SlotRef, ticket: u64) -> Option<Interest> {
        slot.leave(ticket)
    }

    fn timed_out(self, slot: &SlotRef, ticket: u64, timeout: Duration) -> LockError {
        slot.timed_out(ticket, timeout)
    }

    #[inline]
    fn guard(self, slot: SlotRef, wanted: &Wanted, won: Won, meter: Meter) -> LockGuard {
        let (ticket, token, lease) = won;
        if let Some(min_hold) = wanted.min_hold.get() {
            slot.keep(ticket, min_hold);
        }
        LockGuard::new(slot, ticket, token, lease, wanted.release, meter.acquired())
    }
}

/// The reader–writer lock, beside other readers.
#[derive(Clone, Copy)]
pub struct Read;

/// The reader–writer lock, beside other readers, as the one who may become the writer.
#[derive(Clone, Copy)]
pub(crate) struct Upgradeable;

/// The reader–writer lock, alone.
#[derive(Clone, Copy)]
pub struct Write;

/// Permits of a semaphore, as the caller has written their numbers.
#[derive(Clone, Copy, Debug)]
pub struct Permits {
    pub(crate) limit: u32,
    pub(crate) take: u32,
}

impl Permits {
    /// Checks the numbers, and whether the provider can do that.
    fn check(self, slot: &SlotRef, provider: &Capabilities) -> Result<(), LockError> {
        let wrong = match self {
            Self { limit: 0, .. } => "expected at least 1 permit, got 0".to_owned(),
            Self { take: 0, .. } => "expected to take at least 1 permit, got 0".to_owned(),
            Self { limit, take } if take > limit => {
                format!("expected to take at most the {limit} permits that there are, got {take}")
            }
            _ if !provider.semaphore => {
                let detail = format!("`{}` has no semaphores", provider.provider);
                return Err(slot.error(LockErrorKind::Unsupported).with_detail(detail));
            }
            Self { take: 2.., .. } if !provider.many_permits => {
                let detail = format!(
                    "`{}` cannot take several permits at once",
                    provider.provider
                );
                return Err(slot.error(LockErrorKind::Unsupported).with_detail(detail));
            }
            _ => return Ok(()),
        };
        Err(slot.error(LockErrorKind::InvalidConfig).with_detail(wrong))
    }

    pub(crate) fn mode(self) -> LockMode {
        // Neither is zero once the numbers are checked.
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        LockMode::Permits {
            limit: number(self.limit),
            take: number(self.take),
        }
    }
}

fn check_read_write(slot: &SlotRef, provider: &Capabilities) -> Result<(), LockError> {
    if provider.read_write {
        return Ok(());
    }
    let detail = format!("`{}` has no reader–writer locks", provider.provider);
    Err(slot.error(LockErrorKind::Unsupported).with_detail(detail))
}

fn check_upgradeable(slot: &SlotRef, provider: &Capabilities) -> Result<(), LockError> {
    check_read_write(slot, provider)?;
    if provider.upgradeable {
        return Ok(());
    }
    let detail = format!("`{}` has no upgradeable reads", provider.provider);
    Err(slot.error(LockErrorKind::Unsupported).with_detail(detail))
}

/// Refuses what would wait for the task itself. There is nothing that it could join.
#[inline]
fn waits_for_nobody_here<S>(slot: &SlotRef, mode: LockMode) -> Result<Option<S>, LockError> {
    match reentrancy::held(slot.address()).is_in_the_way_of(mode) {
        true => Err(slot.error(LockErrorKind::WouldDeadlock)),
        false => Ok(None),
    }
}

/// Implements what the kinds of shared slots have in common.
macro_rules! shared {
    ($kind:ty, $guard:ident, $primitive:expr, $label:literal, $mode:expr, $check:expr, $nested:expr, $has_token:literal) => {
        impl Kind for $kind {
            type Guard = $guard;
            type Free = (Option<FencingToken>, Option<Arc<Lease>>);

            const KIND: LockKind = $primitive;
            const MODE: &'static str = $label;

            fn check(self, slot: &SlotRef, facts: &Facts) -> Result<(), LockError> {
                $check(self, slot, &facts.capabilities)
            }

            #[inline]
            fn arrive(
                self,
                slot: &SlotRef,
                wanted: &Wanted,
                until: impl FnOnce() -> Timestamp,
                in_process: bool,
                _: &mut Option<Waker>,
            ) -> Result<Arrival<Self::Free>, LockError> {
                match $nested(self, slot)? {
                    Some(share) => Ok(Arrival::Free(share)),
                    None => slot.arrive_shared($mode(self), wanted, until, in_process),
                }
            }

            #[inline]
            fn won(self, slot: &SlotRef, (token, lease): Self::Free) -> Won {
                match lease {
                    Some(lease) => {
                        // A loss since then is the guard's to tell.
                        lease.take();
                        (0, token, Some(lease))
                    }
                    None => (0, self.draw_token(slot, 0), None),
                }
            }

            #[inline]
            fn draw_token(self, slot: &SlotRef, _: u64) -> Option<FencingToken> {
                match $has_token {
                    true => slot.draw_shared_token($mode(self)),
                    false => None,
                }
            }

            fn look_inside(self, slot: &SlotRef, ticket: u64) -> Result<Option<Won>, LockError> {
                Ok($nested(self, slot)?.map(|share| {
                    slot.leave_shared(ticket);
                    self.won(slot, share)
                }))
            }

            #[inline]
            fn takes_in_process(self, _: &SlotRef, _: u64) -> bool {
                false
            }

            fn poll_ticket(
                self,
                slot: &SlotRef,
                ticket: u64,
                new: bool,
                context: &Context<'_>,
            ) -> Poll<Result<Look, LockError>> {
                slot.poll_shared(ticket, new, context)
            }

            fn give_back_unused(self, slot: &SlotRef, ticket: u64, lease: Arc<Lease>) {
                slot.give_back_share($mode(self), lease, ticket);
            }

            fn leave(self, slot: &SlotRef, ticket: u64) -> Option<Interest> {
                slot.leave_shared(ticket)
            }

            fn timed_out(self, slot: &SlotRef, ticket: u64, timeout: Duration) -> LockError {
                slot.shared_timed_out(ticket, timeout)
            }

            #[inline]
            fn guard(self, slot: SlotRef, wanted: &Wanted, won: Won, meter: Meter) -> $guard {
                let (_, token, lease) = won;
                let share = Share::new($mode(self), token, lease, wanted.min_hold);
                $guard::new(slot, share, wanted.release, meter.acquired())
            }
        }
    };
}

shared!(
    Read,
    RwLockReadGuard,
    LockKind::RwLock,
    "read",
    |_: Read| LockMode::Read,
    |_: Read, slot: &SlotRef, provider: &Capabilities| check_read_write(slot, provider),
    |_: Read, slot: &SlotRef| {
        let held = reentrancy::held(slot.address());
        if held.is_in_the_way_of(LockMode::Read) {
            return Err(slot.error(LockErrorKind::WouldDeadlock));
        }
        // To wait behind a writer who waits for this task would be the deadlock.
        Ok(match held.reading {
            true => slot.join_nested(),
            false => None,
        })
    },
    true
);

shared!(
    Upgradeable,
    RwLockUpgradeableReadGuard,
    LockKind::RwLock,
    "upgradeable",
    |_: Upgradeable| LockMode::Upgradeable,
    |_: Upgradeable, slot: &SlotRef, provider: &Capabilities| check_upgradeable(slot, provider),
    // It could not join a read of its own, and would wait for it when it upgrades.
    |_: Upgradeable, slot: &SlotRef| waits_for_nobody_here(slot, LockMode::Upgradeable),
    true
);

shared!(
    Write,
    RwLockWriteGuard,
    LockKind::RwLock,
    "write",
    |_: Write| LockMode::Write,
    |_: Write, slot: &SlotRef, provider: &Capabilities| check_read_write(slot, provider),
    |_: Write, slot: &SlotRef| waits_for_nobody_here(slot, LockMode::Write),
    true
);

shared!(
    Permits,
    SemaphorePermit,
    LockKind::Semaphore,
    "permit",
    Permits::mode,
    Permits::check,
    |permits: Permits, slot: &SlotRef| waits_for_nobody_here(slot, permits.mode()),
    false
);
