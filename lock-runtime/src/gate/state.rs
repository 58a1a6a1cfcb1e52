//! The state of one slot: who holds it, who has seen that, and what may be passed on.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

use super::queue::{Queue, Waiter};
use super::source::Source;
use crate::clock::Timestamp;
use crate::end::GrantEnd;
use crate::hold::Hold;
use crate::provider::Interest;
use crate::signal::Signal;
use crate::token::FencingToken;
use crate::{LockError, keeper, wake};

/// How many grants in a row the process may hand to its own waiters before it asks the server
/// whether another process waits.
const LONGEST_RUN: u32 = 32;
/// And for how long.
const LONGEST_RUN_TIME: Duration = Duration::from_millis(10);
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
    pub(super) run: Run,
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
    /// `hold` is `None` for locks of this process alone.
    Held {
        ticket: u64,
        token: Option<FencingToken>,
        hold: Option<Arc<Hold>>,
        /// The caller has it, and not only a place that was served.
        taken: bool,
    },
    /// The body has ended, and `min_hold` has not: the lock stays. `hold` is `None` for locks of
    /// this process alone; the other tells to end it early.
    Resting(Option<Arc<Hold>>, Arc<Notify>),
    /// The provider is releasing, or is to do so when the guard of this lost hold is gone: `kept`.
    Releasing {
        since: Timestamp,
        kept: Option<Arc<Hold>>,
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

/// What is left of the grants that one acquisition may serve inside this process.
#[derive(Default)]
pub(super) struct Run {
    next_token: Option<FencingToken>,
    left: u32,
    ends: Option<Timestamp>,
    /// The highest token that was ever handed out here.
    highest: Option<FencingToken>,
}

/// What a change of the state leads to, once its lock is free: wakers, destructors and signals may
/// run anybody's code.
#[derive(Default)]
#[must_use]
pub(super) struct Effects {
    /// Most changes wake one, and lead to nothing else.
    first: Option<Waker>,
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    wakers: Vec<Waker>,
    waiters: Vec<Waiter>,
    abandoned: Option<Interest>,
    jobs: Vec<keeper::Job>,
    later: Vec<Box<dyn FnOnce() + Send>>,
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
    pub(super) fn releasing(kept: Option<Arc<Hold>>) -> Self {
        Self::Releasing {
            since: Timestamp::now(),
            kept,
        }
    }

    /// Whether somebody in this process holds the lock, or a body may still run that did.
    pub(super) fn is_held(&self) -> bool {
        matches!(
            self,
            Self::Held { .. } | Self::Resting(..) | Self::Releasing { kept: Some(_), .. }
        )
    }

    /// Whether it is this hold that stands here.
    pub(super) fn is_of(&self, hold: &Hold) -> bool {
        let present = match self {
            Self::Held { hold, .. } | Self::Resting(hold, _) => hold.as_ref(),
            _ => None,
        };
        present.is_some_and(|present| std::ptr::eq(&**present, hold))
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
            hold: None,
            taken: true,
        };
        // Nothing to drop in what was there, and this path is a hot one.
        std::mem::forget(std::mem::replace(&mut self.phase, held));
        self.last_ticket
    }

    /// Lets this ticket have what was granted or passed on.
    #[inline]
    fn hand_to(&mut self, to: u64, new_token: Option<FencingToken>, new_hold: Option<Arc<Hold>>) {
        // Changed where it stands: a whole phase would be written twice.
        if let Phase::Held {
            ticket,
            token,
            hold,
            taken,
        } = &mut self.phase
        {
            (*ticket, *token, *taken) = (to, new_token, false);
            *hold = new_hold;
            self.saw_holder = self.last_ticket;
            return;
        }
        self.set(Phase::Held {
            ticket: to,
            token: new_token,
            hold: new_hold,
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
            several => u32::try_from(several * GRANTS_EACH).unwrap_or(LONGEST_RUN),
        };
        NonZeroU32::new(tokens.min(LONGEST_RUN)).unwrap_or(NonZeroU32::MIN)
    }

    /// Whether the next waiter may have this hold without the server.
    pub(super) fn may_pass(&self, hold: &Hold, first: &Source) -> bool {
        self.run.left > 0
            && self.queue.front().is_some_and(|head| {
                hold.serves(head.source.as_deref().unwrap_or(first), head.lease.get())
            })
            && self.run.ends.is_some_and(|end| !end.has_passed())
    }

    /// Gives the lock to the head of the queue; refuses it to those who only try.
    pub(super) fn pass(
        &mut self,
        hold: Option<Arc<Hold>>,
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
        let token = hold.as_ref().and_then(|hold| {
            hold.passed_to(ticket);
            self.run.take()
        });
        self.hand_to(ticket, token, hold);
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

impl Run {
    /// Begins a run with what the provider granted. False if its tokens are not above those that
    /// were handed out: then none is.
    pub(super) fn start(&mut self, hold: &Hold, local_hand_over: bool) -> bool {
        let grant = hold.grant();
        let first = grant.token();
        let grows = first.is_none_or(|first| self.highest.is_none_or(|highest| first > highest));
        self.next_token = first.filter(|_| grows);
        self.left = match (local_hand_over, first) {
            (false, _) => 1,
            (true, Some(_)) => grant.tokens().get().min(LONGEST_RUN),
            (true, None) => LONGEST_RUN,
        };
        self.ends = Some(Timestamp::now() + LONGEST_RUN_TIME);
        grows
    }

    fn take(&mut self) -> Option<FencingToken> {
        self.left = self.left.saturating_sub(1);
        let token = self.next_token?;
        self.next_token = Some(token.next());
        self.highest = Some(token);
        Some(token)
    }
}

impl Effects {
    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        if self.first.is_none() {
            self.first = waker;
        } else if let Some(waker) = waker {
            self.more().wakers.push(waker);
        }
    }

    pub(super) fn drop_later(&mut self, waiter: Waiter) {
        self.more().waiters.push(waiter);
    }

    pub(super) fn abandon(&mut self, interest: Interest) {
        self.more().abandoned = Some(interest);
    }

    /// A job that could not be handed to the background thread.
    pub(super) fn drop_job(&mut self, job: keeper::Job) {
        self.more().jobs.push(job);
    }

    /// Runs this too.
    pub(super) fn later(&mut self, work: impl FnOnce() + Send + 'static) {
        self.more().later.push(Box::new(work));
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.wake(other.first);
        let Some(other) = other.more else {
            return;
        };
        let more = self.more();
        more.wakers.extend(other.wakers);
        more.waiters.extend(other.waiters);
        more.jobs.extend(other.jobs);
        more.later.extend(other.later);
        if other.abandoned.is_some() {
            more.abandoned = other.abandoned;
        }
    }

    /// To be called without the slot's lock.
    pub(super) fn happen(self) {
        let Some(more) = self.more else {
            if let Some(waker) = self.first {
                wake::one(waker);
            }
            return;
        };
        // First, so that what is logged is there when a caller goes on.
        for work in more.later {
            wake::survive(work);
        }
        wake::all(self.first);
        if let Some(interest) = more.abandoned {
            wake::survive(|| interest.abandon());
        }
        wake::all(more.wakers);
        for waiter in more.waiters {
            wake::survive(|| drop(waiter));
        }
        for job in more.jobs {
            wake::survive(|| drop(job));
        }
    }
}
