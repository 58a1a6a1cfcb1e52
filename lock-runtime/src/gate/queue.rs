//! The state of one slot: who holds it, who waits, and what may be passed on.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::LockError;
use crate::clock::Timestamp;
use crate::guard::FencingToken;
use crate::hold::Hold;
use crate::provider::Interest;

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
    /// In arrival order, and so in the order of tickets.
    pub(super) queue: VecDeque<Waiter>,
    /// Waiters that got an error and have not yet looked.
    pub(super) failed: Vec<(u64, LockError)>,
    pub(super) run: Run,
    /// Callers who gave up and wait for the abandoned acquisition to end.
    pub(super) withdrawing: Vec<Waker>,
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
    },
    /// The provider is releasing, or is to do so when the guard of a lost lock is gone: `kept`.
    Releasing { since: Timestamp, kept: bool },
}

pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) waits: bool,
    pub(super) lease: Option<Duration>,
    pub(super) waker: Option<Waker>,
}

/// What is left of the grants that one acquisition may serve inside this process.
#[derive(Default)]
pub(super) struct Run {
    pub(super) next_token: Option<FencingToken>,
    pub(super) left: u32,
    pub(super) ends: Option<Timestamp>,
}

impl Phase {
    pub(super) fn releasing(kept: bool) -> Self {
        Self::Releasing {
            since: Timestamp::now(),
            kept,
        }
    }
}

impl State {
    pub(super) fn place(&self, ticket: u64) -> Option<usize> {
        self.queue
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
            .ok()
    }

    pub(super) fn tokens_wanted(&self) -> NonZeroU32 {
        let tokens = match self.queue.len() {
            0 | 1 => 1,
            several => u32::try_from(several * GRANTS_EACH).unwrap_or(LONGEST_RUN),
        };
        NonZeroU32::new(tokens.min(LONGEST_RUN)).unwrap_or(NonZeroU32::MIN)
    }

    /// Whether the next waiter may have this hold without the server.
    pub(super) fn may_pass(&self, hold: &Hold) -> bool {
        self.run.left > 0
            && self
                .queue
                .front()
                .is_some_and(|head| head.lease == hold.lease_asked())
            && self.run.ends.is_some_and(|end| !end.has_passed())
    }

    /// Gives the hold to the head of the queue, whom to wake then.
    pub(super) fn pass(&mut self, hold: Arc<Hold>) -> Option<Waker> {
        let next = self.queue.pop_front()?;
        let token = self.run.take();
        hold.passed_to(next.ticket);
        self.phase = Phase::Held {
            ticket: next.ticket,
            token,
            hold: Some(hold),
        };
        next.waker
    }

    /// Fails these waiters; whom to wake then.
    pub(super) fn fail(
        &mut self,
        error: &LockError,
        which: impl Fn(&Waiter) -> bool,
    ) -> Vec<Waker> {
        let (failed, left) = mem::take(&mut self.queue).into_iter().partition(which);
        self.queue = left;
        let failed: VecDeque<Waiter> = failed;
        self.failed
            .extend(failed.iter().map(|waiter| (waiter.ticket, error.clone())));
        failed
            .into_iter()
            .filter_map(|waiter| waiter.waker)
            .collect()
    }

    pub(super) fn fail_first(&mut self, error: LockError) -> Option<Waker> {
        let first = self.queue.pop_front()?;
        self.failed.push((first.ticket, error));
        first.waker
    }
}

impl Run {
    pub(super) fn start(&mut self, hold: &Hold, local_hand_over: bool) {
        let grant = hold.grant();
        self.next_token = grant.token();
        self.left = match (local_hand_over, grant.token()) {
            (false, _) => 1,
            (true, Some(_)) => grant.tokens().get().min(LONGEST_RUN),
            (true, None) => LONGEST_RUN,
        };
        self.ends = Some(Timestamp::now() + LONGEST_RUN_TIME);
    }

    pub(super) fn take(&mut self) -> Option<FencingToken> {
        self.left = self.left.saturating_sub(1);
        let token = self.next_token?;
        self.next_token = Some(token.next());
        Some(token)
    }
}
