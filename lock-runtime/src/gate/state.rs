//! The state of one slot: who holds it, who has seen that, and what may be passed on.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::sync::Notify;

use super::effects::Effects;
use super::local_hand_over::{LocalHandOver, MOST_LOCAL_GRANTS};
use super::queue::{Queue, Waiter};
use crate::clock::Timestamp;
use crate::end::GrantEnd;
use crate::error::LockError;
use crate::lease::Lease;
use crate::provider::Interest;
use crate::signal::Signal;
use crate::source::Source;
use crate::token::FencingToken;

/// How many grants to ask for at once for each waiter, while several wait: those who are served are
/// often back before the run is over.
const GRANTS_EACH: usize = 4;

#[derive(Default)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) last_ticket: u64,
    pub(super) queue: Queue,
    /// Those who try while the provider is asked for somebody else: they share that answer.
    pub(super) sharers: Queue,
    /// Waiters that got an error and have not yet looked.
    failed: BTreeMap<u64, Arc<LockError>>,
    pub(super) local: LocalHandOver,
    pub(super) served: Served,
    /// Every ticket up to this one was there while somebody was seen to hold the lock.
    pub(super) saw_holder: u64,
    /// How many grants in a row had ended when they arrived.
    pub(super) late: u32,
    /// Why nobody can tell at present whether the lock is free.
    pub(super) trouble: Option<LockError>,
    /// The server keeps the lock until then, for the `min_hold` of one that was released here.
    pub(super) rests_until: Option<Timestamp>,
    /// The next call asks for the head's own lease and no longer one.
    pub(super) exactly: bool,
    /// What few guards need, by ticket.
    pub(super) extras: BTreeMap<u64, Extra>,
    /// When the call under way began.
    pub(super) asked_at: Option<Timestamp>,
    /// The background thread looks whether the grant is taken, or the call answered.
    pub(super) looked_at: bool,
}

#[derive(Default)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// The provider is acquiring for the head of the queue; abandoned if the queue is empty.
    Acquiring(Interest),
    /// `lease` is `None` for locks of this process alone.
    Held {
        ticket: u64,
        token: Option<FencingToken>,
        lease: Option<Arc<Lease>>,
        /// The caller has it, and not only a place that was served.
        taken: bool,
    },
    /// The body has ended, and `min_hold` has not: the lock stays. `lease` is `None` for locks of
    /// this process alone; the other tells to end it early.
    Resting(Option<Arc<Lease>>, Arc<Notify>),
    /// The provider is releasing, or is to do so when the guard of this lost lease is gone: `deferred`.
    Releasing {
        since: Timestamp,
        deferred: Option<Arc<Lease>>,
    },
}

#[derive(Default)]
pub(super) struct Extra {
    /// With `min_hold`: the lock stays until then, also if the guard goes before.
    pub(super) keep_until: Option<Timestamp>,
    /// Somebody waits for the end of the grant.
    pub(super) ended: Option<Arc<Signal<GrantEnd>>>,
}

/// The waiter that was served last.
pub(super) struct Served {
    pub(super) template: &'static str,
    /// When its caller's timeout passes, if ever.
    pub(super) until: Timestamp,
    /// When somebody first looked and found the grant not taken.
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

    /// Whether somebody in this process holds the lock, or a body may still run that did.
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

    /// Whether it is this lease that stands here.
    pub(super) fn is_of(&self, lease: &Lease) -> bool {
        let present = match self {
            Self::Held { lease, .. } | Self::Resting(lease, _) => lease.as_ref(),
            _ => None,
        };
        present.is_some_and(|present| std::ptr::eq(&**present, lease))
    }
}

impl State {
    /// Lets a new ticket have a lock of this process that is free.
    #[inline]
    pub(super) fn hold_in_process(&mut self) -> u64 {
        self.last_ticket += 1;
        let held = Phase::Held {
            ticket: self.last_ticket,
            token: None,
            lease: None,
            taken: true,
        };
        // Nothing to drop in what was there, and this path is a hot one.
        std::mem::forget(std::mem::replace(&mut self.phase, held));
        self.last_ticket
    }

    /// Lets this ticket have what was granted or passed on.
    #[inline]
    fn hand_to(&mut self, to: u64, new_token: Option<FencingToken>, new_hold: Option<Arc<Lease>>) {
        // Changed where it stands: a whole phase would be written twice.
        if let Phase::Held {
            ticket,
            token,
            lease,
            taken,
        } = &mut self.phase
        {
            (*ticket, *token, *taken) = (to, new_token, false);
            *lease = new_hold;
            self.saw_holder = self.last_ticket;
            return;
        }
        self.set(Phase::Held {
            ticket: to,
            token: new_token,
            lease: new_hold,
            taken: false,
        });
    }

    /// Goes on to this phase, and keeps in mind who has seen a holder. The phase before.
    pub(super) fn enter(&mut self, phase: Phase) -> Phase {
        self.note_holder();
        std::mem::replace(&mut self.phase, phase)
    }

    /// The same, where nothing of the phase before is of use.
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

    /// Whether the background thread is to look whether the grant is taken; it is told once.
    pub(super) fn be_looked_at(&mut self) -> bool {
        let untaken = matches!(self.phase, Phase::Held { taken: false, .. });
        untaken && !std::mem::replace(&mut self.looked_at, true)
    }

    /// Whether somebody is seen to hold the lock now, by this process or by the server.
    pub(super) fn sees_holder(&self) -> bool {
        match &self.phase {
            Phase::Acquiring(interest) => interest.is_contended() || self.rests(),
            phase => phase.is_held() || self.rests(),
        }
    }

    /// Whether a `min_hold` that the server sees to is not over.
    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| !until.has_passed())
    }

    pub(super) fn waiter(&mut self, ticket: u64) -> Option<&mut Waiter> {
        match self.queue.get(ticket) {
            Some(waiter) => Some(waiter),
            None => self.sharers.get(ticket),
        }
    }

    pub(super) fn tokens_wanted(&self) -> NonZeroU32 {
        let tokens = match self.queue.len() {
            0 | 1 => 1,
            several => u32::try_from(several * GRANTS_EACH).unwrap_or(MOST_LOCAL_GRANTS),
        };
        NonZeroU32::new(tokens.min(MOST_LOCAL_GRANTS)).unwrap_or(NonZeroU32::MIN)
    }

    /// Whether the next waiter may have this lease without the server.
    pub(super) fn may_pass(&self, lease: &Lease, first: &Source) -> bool {
        self.local.may_go_on()
            && self.queue.front().is_some_and(|head| {
                lease.serves(head.source.as_deref().unwrap_or(first), head.lease.get())
            })
    }

    /// Gives the lock to the head of the queue; refuses it to those who only try.
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
            self.local.take()
        });
        self.hand_to(ticket, token, lease);
        if let Some(source) = source {
            effects.later(move || drop(source));
        }
        if !self.sharers.is_empty() {
            let refused = refused();
            effects.extend(self.fail_sharers(&refused));
        }
        effects
    }

    /// Fails these waiters.
    pub(super) fn fail(&mut self, error: &LockError, which: impl Fn(&Waiter) -> bool) -> Effects {
        let mut failed = self.queue.take(&which);
        failed.extend(self.sharers.take(which));
        self.failed(failed, error)
    }

    /// Fails those who try and share another one's call.
    pub(super) fn fail_sharers(&mut self, error: &LockError) -> Effects {
        let failed = self.sharers.take(|_| true);
        self.failed(failed, error)
    }

    fn failed(&mut self, mut failed: Vec<Waiter>, error: &LockError) -> Effects {
        let error = Arc::new(error.clone());
        let mut effects = Effects::default();
        for waiter in &mut failed {
            self.failed.insert(waiter.ticket, Arc::clone(&error));
            effects.wake(waiter.waker.take());
        }
        effects.more().waiters = failed;
        effects
    }

    /// The error of a waiter that failed.
    pub(super) fn take_error(&mut self, ticket: u64) -> Option<LockError> {
        let error = self.failed.remove(&ticket)?;
        Some((*error).clone())
    }
}
