//! One lock of several: what is wanted of it, the wait for it, and its guard.

use std::time::Duration;

use crate::acquire::{Acquiring, Wait, check};
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::future::BoxFuture;
use crate::gate::{SlotRef, Sought, Wanted};
use crate::guard::{Guard, LockGuard};
use crate::kind::{Exclusive, Kind, Permits, Read, Write};
use crate::name::LockName;
use crate::provider::{LockKind, LockMode, LossReporter};
use crate::reentrancy::{self, Holding};
use crate::shared_guard::{RwLockReadGuard, RwLockWriteGuard, SemaphorePermit};
use crate::token::FencingToken;

/// What is wanted of one lock of several.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Exclusive,
    Read,
    Write,
    Permits(Permits),
}

impl Wish {
    pub(crate) fn kind(self) -> LockKind {
        match self {
            Self::Exclusive => LockKind::Mutex,
            Self::Read | Self::Write => LockKind::RwLock,
            Self::Permits(_) => LockKind::Semaphore,
        }
    }

    fn mode(self) -> LockMode {
        match self {
            Self::Exclusive => LockMode::Exclusive,
            Self::Read => LockMode::Read,
            Self::Write => LockMode::Write,
            Self::Permits(permits) => permits.mode(),
        }
    }
}

/// One lock of several, with what is wanted of it.
pub(crate) struct Part {
    pub(crate) slot: SlotRef,
    pub(crate) wish: Wish,
    /// Its timeout is that of all.
    pub(crate) wanted: Wanted,
}

impl Part {
    /// Refuses what can be refused without a look at the queue, a wait of the task for itself too.
    pub(crate) fn check(&self) -> Result<(), LockError> {
        let slot = &self.slot;
        let facts = slot.source().ask();
        let facts = facts.map_err(|error| error.with_name(slot.name.clone()))?;
        match self.wish {
            Wish::Exclusive => check(Exclusive, slot, facts, &self.wanted)?,
            Wish::Read => check(Read, slot, facts, &self.wanted)?,
            Wish::Write => check(Write, slot, facts, &self.wanted)?,
            Wish::Permits(permits) => check(permits, slot, facts, &self.wanted)?,
        }
        match reentrancy::held(slot.address()).is_in_the_way_of(self.wish.mode()) {
            true => Err(slot.error(LockErrorKind::WouldDeadlock)),
            false => Ok(()),
        }
    }

    /// Says what is wanted, for a call that asks for several.
    pub(crate) fn sought(&self, wanted: Wanted) -> Sought<'_> {
        Sought {
            slot: &self.slot,
            mode: self.wish.mode(),
            wanted,
        }
    }

    /// Acquires it: from a new place in the queue, or with a ticket that the caller has.
    pub(crate) fn acquire(
        &self,
        wanted: Wanted,
        ticket: Option<(u64, Timestamp)>,
    ) -> BoxFuture<'static, Result<PartGuard, LockError>> {
        let slot = self.slot.clone();
        match self.wish {
            Wish::Exclusive => waiting(Exclusive, slot, wanted, ticket, PartGuard::Mutex),
            Wish::Read => waiting(Read, slot, wanted, ticket, PartGuard::Read),
            Wish::Write => waiting(Write, slot, wanted, ticket, PartGuard::Write),
            Wish::Permits(permits) => waiting(permits, slot, wanted, ticket, PartGuard::Permits),
        }
    }

    /// Gives back a ticket that is not needed.
    pub(crate) fn leave(&self, ticket: u64) {
        match self.wish {
            Wish::Exclusive => Exclusive.leave(&self.slot, ticket),
            Wish::Read => Read.leave(&self.slot, ticket),
            Wish::Write => Write.leave(&self.slot, ticket),
            Wish::Permits(permits) => permits.leave(&self.slot, ticket),
        };
    }
}

fn waiting<K: Kind>(
    kind: K,
    slot: SlotRef,
    wanted: Wanted,
    ticket: Option<(u64, Timestamp)>,
    guard: impl FnOnce(K::Guard) -> PartGuard + Send + 'static,
) -> BoxFuture<'static, Result<PartGuard, LockError>> {
    let mut wait = ticket.map(|(ticket, until)| Wait::of_ticket(ticket, until));
    Box::pin(async move {
        let mut slot = Some(slot);
        let acquired = Acquiring::new(kind, &mut slot, &wanted, &mut wait).await;
        acquired.map(guard)
    })
}

/// The guard of one lock of several.
pub(crate) enum PartGuard {
    Mutex(LockGuard),
    Read(RwLockReadGuard),
    Write(RwLockWriteGuard),
    Permits(SemaphorePermit),
}

/// Does the same with the guard of any kind.
macro_rules! each {
    ($part:expr, $guard:ident => $result:expr) => {
        match $part {
            PartGuard::Mutex($guard) => $result,
            PartGuard::Read($guard) => $result,
            PartGuard::Write($guard) => $result,
            PartGuard::Permits($guard) => $result,
        }
    };
}

impl PartGuard {
    pub(crate) fn slot(&self) -> &SlotRef {
        each!(self, guard => guard.slot())
    }

    pub(crate) fn name(&self) -> &LockName {
        &self.slot().name
    }

    pub(crate) fn token(&self) -> Option<FencingToken> {
        each!(self, guard => guard.token())
    }

    pub(crate) fn holding(&self) -> Holding {
        each!(self, guard => guard.holding())
    }

    pub(crate) fn has_lost(&self) -> bool {
        each!(self, guard => guard.has_lost())
    }

    pub(crate) fn loss(&self) -> LockError {
        each!(self, guard => Guard::loss(guard))
    }

    pub(crate) fn loss_reporter(&self) -> Option<LossReporter> {
        let lease = each!(self, guard => guard.lease());
        lease.map(|lease| lease.loss_reporter())
    }

    pub(crate) fn renew_until(&self, end: Timestamp) {
        each!(self, guard => guard.renew_until(end));
    }

    /// Keeps the lock for at least this long from now, even if the guard goes before.
    pub(crate) fn keep(&mut self, min_hold: Duration) {
        match self {
            Self::Mutex(guard) => guard.keep(min_hold),
            // It would keep writers out with nobody reading.
            Self::Read(_) => {}
            Self::Write(guard) => guard.keep(min_hold),
            Self::Permits(guard) => guard.keep(min_hold),
        }
    }

    pub(crate) async fn release_in_place(&self) -> Result<(), LockError> {
        each!(self, guard => Guard::release_in_place(guard).await)
    }
}
