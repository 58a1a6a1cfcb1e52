//! The state of one slot: its holder, its waiters, and which of them have seen a holder.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::Waker;

use tokio::sync::Notify;

use super::effects::Effects;
use super::local_hand_over::{LocalHandOver, MOST_LOCAL_GRANTS};
use super::queue::{Queue, Waiter};
use crate::clock::Timestamp;
use crate::end::GrantEnd;
use crate::error::LockError;
use crate::lease::Lease;
use crate::provider::{Holder, Interest};
use crate::signal::Signal;
use crate::source::Source;
use crate::token::FencingToken;

/// How many grants to ask for at once for each waiter, while several wait. A caller that was served
/// is often back before the run is over.
const GRANTS_EACH: usize = 4;

#[derive(Default)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) last_ticket: u64,
    pub(super) queue: Queue,
    /// Boxed, since a slot is made for every call whose name nobody else uses at that moment.
    rare: Option<Box<Rare>>,
    pub(super) served: Served,
    /// The last ticket that was there while a holder was seen. All before it were there too.
    pub(super) saw_holder: u64,
    /// The last ticket whose own grant ended unused, and which had seen no holder before.
    unused: u64,
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
}

/// Describes the holder in this process that has this lease; without one, the lock is of this
/// process alone, and nobody has noted since when.
pub(super) fn of_lease(lease: Option<&Arc<Lease>>) -> Holder {
    match lease {
        Some(lease) => lease.holder(),
        None => Holder::here(),
    }
}

/// What few slots need, or only those of a server.
#[derive(Default)]
pub(super) struct Rare {
    /// Callers that only try while the provider is asked for another caller, and share the answer.
    pub(super) sharers: Queue,
    /// The errors of waiters that have not looked yet, by ticket.
    failed: BTreeMap<u64, Arc<LockError>>,
    /// What few guards need, by ticket.
    pub(super) extras: BTreeMap<u64, Extra>,
    pub(super) local: LocalHandOver,
}

/// What a slot does at present.
#[derive(Default)]
pub(super) enum Phase {
    /// There is no holder, and no call is under way.
    #[default]
    Idle,
    /// The provider acquires the lock for the head of the queue. The call is abandoned if the queue
    /// is empty.
    Acquiring(Interest),
    /// A caller holds the lock. `lease` is `None` for a lock of this process alone.
    Held {
        ticket: u64,
        token: Option<FencingToken>,
        lease: Option<Arc<Lease>>,
        /// Whether the caller has taken the grant.
        taken: bool,
    },
    /// The body has ended and `min_hold` has not, so the lock stays. The lease is `None` for a lock
    /// of this process alone. The `Notify` ends the rest early.
    Resting(Option<Arc<Lease>>, Arc<Notify>),
    /// The provider releases the lock. With `deferred`, a lost lease, it does so only when the
    /// guard of that lease is gone.
    Releasing {
        since: Timestamp,
        deferred: Option<Arc<Lease>>,
    },
}

/// What few guards need.
#[derive(Default)]
pub(super) struct Extra {
    /// The moment until which `min_hold` keeps the lock, even if the guard goes before.
    pub(super) keep_until: Option<Timestamp>,
    /// The signal of the grant's end, if the guard was asked for it.
    pub(super) ended: Option<Arc<Signal<GrantEnd>>>,
}

/// The waiter that was served last.
pub(super) struct Served {
    pub(super) template: &'static str,
    /// When its caller's timeout passes, if ever.
    pub(super) until: Timestamp,
    /// When the timekeeper first found the grant not taken.
    pub(super) untaken: Timestamp,
}

impl Default for Served {
    fn default() -> Self {
        Self {
            template: "",
            until: Timestamp::NONE,
            untaken: Timestamp::NONE,
        }
    }
}

impl Phase {
    pub(super) fn releasing(deferred: Option<Arc<Lease>>) -> Self {
        Self::Releasing {
            since: Timestamp::now(),
            deferred,
        }
    }

    /// Tells whether a caller of this process holds the lock, or a body that held it may still run.
    pub(super) fn is_held(&self) -> bool {
        matches!(
            self,
            Self::Held { .. }
                | Self::Resting(..)
                | Self::Releasing {
                    deferred: Some(_),
                    ..
                }
        )
    }

    /// Tells whether the slot holds this very lease.
    pub(super) fn is_of(&self, lease: &Lease) -> bool {
        let present = match self {
            Self::Held { lease, .. } | Self::Resting(lease, _) => lease.as_ref(),
            _ => None,
        };
        present.is_some_and(|present| std::ptr::eq(&**present, lease))
    }
}

impl State {
    /// Returns what few slots need, made at the first call.
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Tells whether callers share the answer of the call for the head.
    #[inline]
    pub(super) fn has_sharers(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| !rare.sharers.is_empty())
    }

    /// Tells whether some guard needs what few guards need.
    #[inline]
    pub(super) fn has_extras(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| !rare.extras.is_empty())
    }

    /// Gives a free lock of this process alone to a new ticket.
    #[inline]
    pub(super) fn hold_in_process(&mut self) -> u64 {
        self.last_ticket += 1;
        let held = Phase::Held {
            ticket: self.last_ticket,
            token: None,
            lease: None,
            taken: true,
        };
        // Forgotten, since there is nothing to drop and this path is a hot one.
        std::mem::forget(std::mem::replace(&mut self.phase, held));
        self.last_ticket
    }

    /// Notes that the ticket's caller takes its lock. False if it has none, or one that a lease or
    /// a token comes with.
    #[inline]
    pub(super) fn take(&mut self, ticket: u64) -> bool {
        match &mut self.phase {
            Phase::Held {
                ticket: holder,
                token: None,
                lease: None,
                taken,
            } if *holder == ticket => {
                *taken = true;
                true
            }
            _ => false,
        }
    }

    /// Passes a held lock of this process alone to the head of the queue, and returns the head's
    /// waker. `None` if that leads to more than a wake-up; then nothing is changed.
    ///
    /// It is [`pass`](Self::pass) without what a lock of this process alone seldom needs. No waiter
    /// is moved, since it would be read before the processor has written it.
    #[inline]
    pub(super) fn pass_quickly(&mut self) -> Option<Waker> {
        if self.has_sharers() {
            return None;
        }
        let Phase::Held {
            ticket,
            token: None,
            lease: None,
            taken,
        } = &mut self.phase
        else {
            return None;
        };
        let head = self.queue.front_mut()?;
        if head.source.is_some() {
            return None;
        }
        let waker = head.waker.take()?;
        (*ticket, *taken) = (head.ticket, false);
        self.served.template = head.template;
        self.served.until = head.until;
        self.served.untaken = Timestamp::NONE;
        self.saw_holder = self.last_ticket;
        self.queue.drop_first();
        Some(waker)
    }

    /// Gives this ticket what was granted or passed on.
    #[inline]
    fn hand_to(&mut self, to: u64, new_token: Option<FencingToken>, new_lease: Option<Arc<Lease>>) {
        // Changed in place, since a whole phase would be written twice.
        if let Phase::Held {
            ticket,
            token,
            lease,
            taken,
        } = &mut self.phase
        {
            (*ticket, *token, *taken) = (to, new_token, false);
            *lease = new_lease;
            self.saw_holder = self.last_ticket;
            return;
        }
        self.set(Phase::Held {
            ticket: to,
            token: new_token,
            lease: new_lease,
            taken: false,
        });
    }

    /// Goes on to this phase, and notes which tickets have seen a holder. Returns the phase before.
    pub(super) fn enter(&mut self, phase: Phase) -> Phase {
        self.note_holder();
        std::mem::replace(&mut self.phase, phase)
    }

    /// Does the same as [`enter`](Self::enter), and drops the phase before.
    #[inline]
    pub(super) fn set(&mut self, phase: Phase) {
        self.note_holder();
        self.phase = phase;
    }

    #[inline]
    fn note_holder(&mut self) {
        if self.sees_holder() {
            self.saw_holder = self.last_ticket;
        }
    }

    /// Notes that the grant of this ticket ends unused. It is no other holder for that ticket.
    pub(super) fn note_unused(&mut self, ticket: u64) {
        if self.saw_holder < ticket {
            self.unused = ticket;
        }
    }

    /// Tells whether a holder was seen while this ticket was there.
    pub(super) fn has_seen_holder(&self, ticket: u64) -> bool {
        ticket <= self.saw_holder && ticket != self.unused
    }

    /// Tells whether the timekeeper must be told to look at the grant: the grant is not taken, and
    /// the timekeeper does not look at this slot yet.
    pub(super) fn be_looked_at(&mut self) -> bool {
        let untaken = matches!(self.phase, Phase::Held { taken: false, .. });
        untaken && !std::mem::replace(&mut self.looked_at, true)
    }

    /// Tells whether a holder is seen now, in this process or by the server.
    pub(super) fn sees_holder(&self) -> bool {
        match &self.phase {
            Phase::Acquiring(interest) => interest.is_contended() || self.rests(),
            phase => phase.is_held() || self.rests(),
        }
    }

    /// Returns who has the lock, as far as it is known here.
    pub(super) fn holder(&self) -> Option<Holder> {
        match &self.phase {
            Phase::Held { lease, .. } | Phase::Resting(lease, _) => Some(of_lease(lease.as_ref())),
            Phase::Releasing {
                deferred: Some(lease),
                ..
            } => Some(of_lease(Some(lease))),
            _ if self.rests() => Some(Holder::here()),
            Phase::Acquiring(interest) => interest.holder(),
            _ => None,
        }
    }

    /// Tells whether the server still keeps the lock for its `min_hold`.
    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| !until.has_passed())
    }

    pub(super) fn waiter(&mut self, ticket: u64) -> Option<&mut Waiter> {
        match self.queue.get(ticket) {
            Some(waiter) => Some(waiter),
            None => self.rare.as_mut()?.sharers.get(ticket),
        }
    }

    /// Takes the sharer of this ticket out.
    pub(super) fn remove_sharer(&mut self, ticket: u64) -> Option<Waiter> {
        self.rare.as_mut()?.sharers.remove(ticket)
    }

    /// Returns how many tokens the next grant should carry.
    pub(super) fn tokens_wanted(&self) -> NonZeroU32 {
        let tokens = match self.queue.len() {
            0 | 1 => 1,
            several => u32::try_from(several * GRANTS_EACH).unwrap_or(MOST_LOCAL_GRANTS),
        };
        NonZeroU32::new(tokens.min(MOST_LOCAL_GRANTS)).unwrap_or(NonZeroU32::MIN)
    }

    /// Tells whether the next waiter may have this lease without the server.
    pub(super) fn may_pass(&self, lease: &Lease, first: &Source) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| rare.local.may_go_on())
            && self.queue.front().is_some_and(|head| {
                lease.serves(head.source.as_deref().unwrap_or(first), head.lease.get())
            })
    }

    /// Gives the lock to the head of the queue, and refuses it to callers that only try.
    pub(super) fn pass(
        &mut self,
        lease: Option<Arc<Lease>>,
        refused: impl FnOnce() -> LockError,
    ) -> Effects {
        let mut effects = Effects::default();
        let Some(next) = self.queue.pop() else {
            return effects;
        };
        let (ticket, source) = (next.ticket, next.source);
        effects.first = next.waker;
        self.served = Served {
            template: next.template,
            until: next.until,
            untaken: Timestamp::NONE,
        };
        let token = lease.as_ref().and_then(|lease| {
            lease.passed_to(ticket);
            self.rare().local.take()
        });
        self.hand_to(ticket, token, lease);
        if let Some(source) = source {
            effects.later(move || drop(source));
        }
        if self.has_sharers() {
            let refused = refused();
            effects.extend(self.fail_sharers(&refused));
        }
        effects
    }

    /// Fails the waiters for which `which` is true.
    pub(super) fn fail(&mut self, error: &LockError, which: impl Fn(&Waiter) -> bool) -> Effects {
        let mut failed = self.queue.take(&which);
        if let Some(rare) = &mut self.rare {
            failed.extend(rare.sharers.take(which));
        }
        self.failed(failed, error)
    }

    /// Fails the callers that share the answer of another caller's call.
    pub(super) fn fail_sharers(&mut self, error: &LockError) -> Effects {
        let failed = match &mut self.rare {
            Some(rare) => rare.sharers.take(|_| true),
            None => Vec::new(),
        };
        self.failed(failed, error)
    }

    /// Keeps the error for these waiters, and wakes them.
    fn failed(&mut self, mut failed: Vec<Waiter>, error: &LockError) -> Effects {
        let mut effects = Effects::default();
        if failed.is_empty() {
            return effects;
        }
        let error = Arc::new(error.clone());
        let rare = self.rare();
        for waiter in &mut failed {
            rare.failed.insert(waiter.ticket, Arc::clone(&error));
            effects.wake(waiter.waker.take());
        }
        effects.more().waiters = failed;
        effects
    }

    /// Takes the error of a waiter that failed.
    pub(super) fn take_error(&mut self, ticket: u64) -> Option<LockError> {
        let error = self.rare.as_mut()?.failed.remove(&ticket)?;
        Some((*error).clone())
    }
}
