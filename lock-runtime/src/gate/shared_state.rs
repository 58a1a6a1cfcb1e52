//! The state of a slot that may have several holders.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::local_hand_over::LocalHandOver;
use super::queue::{Queue, Wish};
use super::upgrade_state::{Caller, Upgrade};
use crate::clock::{Span, Timestamp};
use crate::error::LockError;
use crate::lease::Lease;
use crate::provider::{AcquireRequest, Grant, Holder, Interest, LockMode};
use crate::reentrancy::Holding;
use crate::source::Source;
use crate::token::FencingToken;

/// What a guard has of a slot that may have several holders.
pub(crate) struct Share {
    pub(crate) mode: LockMode,
    pub(crate) token: Option<FencingToken>,
    /// `None` for a lock of this process alone.
    pub(crate) lease: Option<Arc<Lease>>,
    /// The moment until which `min_hold` keeps it, even if the guard goes before; none without one.
    pub(crate) keep_until: Timestamp,
    /// The `min_hold` of the writer that a reader may become.
    pub(crate) min_hold: Span,
}

impl Share {
    #[inline]
    pub(crate) fn new(
        mode: LockMode,
        token: Option<FencingToken>,
        lease: Option<Arc<Lease>>,
        min_hold: Span,
    ) -> Self {
        let keep_until = match (mode, min_hold.get()) {
            // It would keep writers out with nobody reading.
            (LockMode::Read | LockMode::Upgradeable, _) | (_, None) => Timestamp::NONE,
            (_, Some(min_hold)) if min_hold.is_zero() => Timestamp::NONE,
            (_, Some(min_hold)) => Timestamp::now() + min_hold,
        };
        Self {
            mode,
            token,
            lease,
            keep_until,
            min_hold,
        }
    }

    /// Returns what a body that runs with it holds of its lock.
    pub(crate) fn holding(&self) -> Holding {
        match self.mode {
            LockMode::Exclusive | LockMode::Write => Holding::Alone,
            LockMode::Read | LockMode::Upgradeable => Holding::Reading,
            LockMode::Permits { take, .. } => Holding::Permits(take),
        }
    }
}

/// What a slot has that may have several holders.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The token of those who read inside at present; [`NO_TOKEN`] if none was drawn yet.
    reading: AtomicU64,
}

const NO_TOKEN: u64 = u64::MAX;

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            reading: AtomicU64::new(NO_TOKEN),
        }
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed in whole steps, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the token of those who read before, since a reader comes in after they have left.
    #[inline]
    pub(super) fn begin_reading(&self) {
        self.reading.store(NO_TOKEN, Ordering::Relaxed);
    }

    /// Returns the token of those who read inside at present. The caller is one of them.
    #[inline]
    pub(super) fn token_of_readers(
        &self,
        draw: impl FnOnce() -> Option<FencingToken>,
    ) -> Option<FencingToken> {
        let known = self.reading.load(Ordering::Relaxed);
        if known != NO_TOKEN {
            return Some(FencingToken::new(known));
        }
        let drawn = draw()?.get();
        let set =
            self.reading
                .compare_exchange(NO_TOKEN, drawn, Ordering::Relaxed, Ordering::Relaxed);
        Some(FencingToken::new(set.err().unwrap_or(drawn)))
    }
}

/// What a waiter wants.
#[derive(Clone, Copy)]
pub(super) struct Aim {
    pub(super) mode: LockMode,
    /// Whether a writer was before it in the queue.
    pub(super) behind_writer: bool,
    /// Whether a reader who may upgrade was before it in the queue.
    pub(super) behind_upgradeable: bool,
}

impl Wish for Aim {
    const NONE: Self = Self {
        mode: LockMode::Exclusive,
        behind_writer: false,
        behind_upgradeable: false,
    };
}

pub(super) type Waiter = super::queue::Waiter<Aim>;

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: Queue<Aim>,
    pub(super) last_ticket: u64,
    /// How many of those who wait only try.
    pub(super) tries: usize,
    /// How many of those who wait are writers.
    pub(super) writers: usize,
    /// How many of those who wait are readers who may upgrade.
    pub(super) upgradeables: usize,
    /// Grants that their callers have not taken yet, by ticket.
    pub(super) served: BTreeMap<u64, Served>,
    /// The errors of waiters that have not looked yet, by ticket.
    pub(super) failed: BTreeMap<u64, Arc<LockError>>,
    pub(super) inside: Inside,
    /// The grants of the provider, by the address of their lease.
    pub(super) holds: BTreeMap<usize, Hold>,
    /// How many permits the holds have.
    pub(super) permits_held: u64,
    /// How many guards of lost grants are still there, by the address of the lease.
    pub(super) lost: BTreeMap<usize, u32>,
    pub(super) call: Option<UnderWay>,
    /// The upgrade of a reader, from its beginning until its answer is taken.
    pub(super) upgrade: Option<Box<Upgrade>>,
    /// A grant that came while bodies under a lost one may still run.
    pub(super) stalled: Option<Box<Stalled>>,
    /// How many releases are under way.
    pub(super) releasing: u32,
    /// How many of them wait until the guards of a lost grant are gone.
    pub(super) lingering: u32,
    pub(super) released_at: Option<Timestamp>,
    /// Whether nothing is asked for at present, since grants had ended when they arrived.
    pub(super) paused: bool,
    /// The run of writers whom one grant serves.
    pub(super) run: LocalHandOver,
    /// The highest token that a writer had.
    pub(super) highest_write: Option<FencingToken>,
    /// The last ticket that was there while a holder was seen that is in everybody's way.
    pub(super) saw_holder: u64,
    /// The last ticket that was there while others read.
    pub(super) saw_readers: u64,
    /// The last ticket that was there while a reader could upgrade.
    pub(super) saw_upgradeable: u64,
    /// The last ticket whose own grant ended unused, and which had seen no holder before.
    pub(super) unused: u64,
    /// How many grants in a row had ended when they arrived.
    pub(super) late: u32,
    /// Why it is not known at present whether the lock is free.
    pub(super) trouble: Option<LockError>,
    /// The moment until which the server keeps a lock that was released here, for its `min_hold`.
    pub(super) rests_until: Option<Timestamp>,
    /// Whether the next call asks for the head's own lease, and not for a longer one.
    pub(super) exactly: bool,
    /// When the call under way began.
    pub(super) asked_at: Option<Timestamp>,
    /// Whether the timekeeper looks at this slot.
    pub(super) looked_at: bool,
    /// How many permits there are, as the last caller said.
    pub(super) limit: Option<NonZeroU32>,
    /// Whether it was logged that callers do not agree on that.
    pub(super) limits_differ: bool,
}

/// What is held of a lock of this process alone.
#[derive(Default)]
pub(super) struct Inside {
    pub(super) readers: u32,
    /// Whether there is a reader who may upgrade. It is not one of `readers`.
    pub(super) upgradeable: bool,
    pub(super) writes: bool,
    pub(super) permits: u64,
}

/// A grant of the provider, and those who share it.
pub(super) struct Hold {
    pub(super) lease: Arc<Lease>,
    pub(super) mode: LockMode,
    pub(super) token: Option<FencingToken>,
    /// How many guards have a share, or are about to.
    pub(super) shares: u32,
    /// Until when readers may join without a question.
    pub(super) open_until: Timestamp,
    /// The run of callers whom one grant of permits serves.
    pub(super) run: LocalHandOver,
    /// Set while it stays for a `min_hold`. The `Notify` ends that early.
    pub(super) resting: Option<Arc<Notify>>,
    pub(super) template: &'static str,
}

/// A grant that its caller has not taken yet.
pub(super) struct Served {
    pub(super) mode: LockMode,
    pub(super) token: Option<FencingToken>,
    pub(super) lease: Option<Arc<Lease>>,
    pub(super) template: &'static str,
    /// When its caller's timeout passes, if ever.
    pub(super) until: Timestamp,
    /// When the timekeeper first found the grant not taken.
    pub(super) untaken: Timestamp,
}

/// The call that is under way.
pub(super) enum UnderWay {
    /// The provider acquires the lock for the head of the queue. The call is abandoned if there is
    /// nobody whom it may serve.
    Acquire {
        mode: LockMode,
        interest: Interest,
        /// A moment before the request was sent.
        sent_at: Timestamp,
    },
    /// The provider is asked whether more readers may join the hold of this address.
    Probe(usize),
}

/// A grant, with the request that it answers.
pub(super) struct Stalled {
    /// The provider that made it, or `None` for the slot's first one.
    pub(super) other: Option<Arc<Source>>,
    pub(super) request: AcquireRequest,
    pub(super) ticket: u64,
    pub(super) grant: Grant,
}

impl Hold {
    /// Tells whether a caller of this provider may read under this hold.
    pub(super) fn is_readable(&self, source: &Source) -> bool {
        self.mode == LockMode::Read && self.lease.is_of(source) && !self.lease.is_lost()
    }
}

/// Returns the key of a lease's hold.
pub(super) fn key(lease: &Arc<Lease>) -> usize {
    Arc::as_ptr(lease).addr()
}

impl State {
    /// Tells whether what is held in this process leaves room for this mode.
    #[inline]
    pub(super) fn fits(&self, mode: LockMode) -> bool {
        match mode {
            LockMode::Read => !self.inside.writes && !self.has_writer() && !self.upgrades(),
            LockMode::Upgradeable => self.fits(LockMode::Read) && !self.has_upgradeable(),
            LockMode::Permits { limit, take } => {
                let taken = self.inside.permits + self.permits_held;
                taken + u64::from(take.get()) <= u64::from(limit.get())
            }
            LockMode::Write | LockMode::Exclusive => {
                !self.inside.writes
                    && !self.inside.upgradeable
                    && self.inside.readers == 0
                    && self.holds.is_empty()
            }
        }
    }

    /// Tells whether a hold is a writer's.
    #[inline]
    pub(super) fn has_writer(&self) -> bool {
        // A reader–writer lock has three holds at most, and a semaphore has no writers.
        self.has_hold(LockMode::Write)
    }

    /// Tells whether a reader of this process may upgrade.
    #[inline]
    pub(super) fn has_upgradeable(&self) -> bool {
        self.inside.upgradeable || self.has_hold(LockMode::Upgradeable)
    }

    /// Tells whether a hold of a reader–writer lock is of this mode.
    #[inline]
    pub(super) fn has_hold(&self, mode: LockMode) -> bool {
        let mut holds = self.holds.values();
        !self.holds.is_empty() && self.permits_held == 0 && holds.any(|hold| hold.mode == mode)
    }

    /// Tells whether somebody reads.
    fn has_reader(&self) -> bool {
        self.inside.readers > 0 || self.has_hold(LockMode::Read) || self.has_upgradeable()
    }

    /// Tells whether nothing is held, waited for or under way.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.holds.is_empty()
            && self.call.is_none()
            && self.releasing == 0
            && self.upgrade.is_none()
            && self.inside.readers == 0
            && !self.inside.upgradeable
            && !self.inside.writes
            && self.inside.permits == 0
    }

    /// Tells whether a holder is seen now that is in everybody's way, in this process or by the
    /// server.
    pub(super) fn sees_holder(&self) -> bool {
        let is_full = || {
            let head = self.queue.front();
            head.is_some_and(|head| {
                matches!(head.wish.mode, LockMode::Permits { .. }) && !self.fits(head.wish.mode)
            })
        };
        self.is_kept_by_writer() || self.is_told() || is_full()
    }

    /// Returns who is in the way of the head of the queue, as far as it is known here. Of several
    /// holders it is one.
    pub(super) fn holder(&self) -> Option<Holder> {
        if let Some(UnderWay::Acquire { interest, .. }) = &self.call
            && let Some(holder) = interest.holder()
        {
            return Some(holder);
        }
        let inside = &self.inside;
        let is_here = inside.writes
            || inside.upgradeable
            || inside.readers > 0
            || inside.permits > 0
            || !self.lost.is_empty();
        match self.holds.values().next() {
            Some(hold) => Some(hold.lease.holder()),
            None => (is_here || self.rests()).then(Holder::here),
        }
    }

    /// Tells whether the server has named a holder to the call under way that is in the way of the
    /// head of the queue, too. The call may be that of somebody who wanted more; and of a call that
    /// nobody wants any more, what it was told may be over.
    pub(super) fn is_told(&self) -> bool {
        let Some(UnderWay::Acquire { mode, interest, .. }) = &self.call else {
            return false;
        };
        let head = self.queue.front();
        interest.is_contended()
            && !interest.is_abandoned()
            && head.is_some_and(|head| wants_as_much(head.wish.mode, *mode))
    }

    /// Tells whether a writer has the lock, or a reader upgrades, or nobody may have it yet.
    pub(super) fn is_kept_by_writer(&self) -> bool {
        self.inside.writes
            || self.has_writer()
            || self.upgrades()
            || self.lingering > 0
            || self.rests()
    }

    /// Tells whether a reader waits to become the writer, so that nobody else comes in.
    #[inline]
    pub(super) fn upgrades(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| {
            upgrade.call.is_some() || !matches!(upgrade.caller, Caller::Has(Err(_)))
        })
    }

    /// Tells whether the server still keeps the lock for its `min_hold`.
    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| !until.has_passed())
    }

    /// Notes which tickets have seen a holder. To be called before what is held changes.
    pub(super) fn note_holder(&mut self) {
        if self.saw_holder < self.last_ticket && self.sees_holder() {
            self.saw_holder = self.last_ticket;
        }
        if self.saw_readers < self.last_ticket && self.has_reader() {
            self.saw_readers = self.last_ticket;
        }
        if self.saw_upgradeable < self.last_ticket && self.has_upgradeable() {
            self.saw_upgradeable = self.last_ticket;
        }
    }

    /// Notes that the grant of this ticket ends unused. It is no other holder for that ticket.
    pub(super) fn note_unused(&mut self, ticket: u64) {
        if self.saw_holder < ticket {
            self.unused = ticket;
        }
    }

    /// Tells whether a holder that is in this ticket's way was seen while the ticket was there.
    pub(super) fn has_seen_holder(&self, ticket: u64, aim: Option<Aim>) -> bool {
        // Readers are in the way of writers, and of readers who wait behind one.
        let minds_readers = aim.is_none_or(|aim| {
            let reads = matches!(aim.mode, LockMode::Read | LockMode::Upgradeable);
            !reads || aim.behind_writer
        });
        // The one who may upgrade is in the way of the next such one, and of those behind that.
        let minds_upgradeable =
            aim.is_none_or(|aim| aim.mode == LockMode::Upgradeable || aim.behind_upgradeable);
        if ticket == self.unused {
            return false;
        }
        ticket <= self.saw_holder
            || self.sees_holder()
            || (minds_readers && (ticket <= self.saw_readers || self.has_reader()))
            || (minds_upgradeable && (ticket <= self.saw_upgradeable || self.has_upgradeable()))
    }

    /// Tells whether a writer of this process waits.
    pub(super) fn has_writer_ahead(&self) -> bool {
        self.writers > 0
    }
}

/// Tells whether `mode` is refused wherever `asked` is.
pub(super) fn wants_as_much(mode: LockMode, asked: LockMode) -> bool {
    match (mode, asked) {
        (
            LockMode::Permits { limit, take },
            LockMode::Permits {
                limit: asked_limit,
                take: asked_take,
            },
        ) => take >= asked_take && limit <= asked_limit,
        // Where a reader is refused, everybody is. Where one who may upgrade is, a writer is too.
        (_, LockMode::Read) | (LockMode::Write, LockMode::Upgradeable) => true,
        _ => mode == asked,
    }
}
