//! The gate: one FIFO queue for each key that this process holds or waits for.
//!
//! Servers let one session, lease or connection take its own lock twice, so two tasks of one
//! process could both hold it; the gate lets only the head of its queue talk to the provider. It
//! also keeps the acquisition apart from whoever waits for it: the provider's call belongs to the
//! queue, so that a caller who goes away neither interrupts the call nor loses the process's place
//! on the server while others wait.
//!
//! A slot is in the table for as long as somebody refers to it: a guard, a waiter, a call that is
//! under way.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::guard::{FencingToken, LockGuard};
use crate::hold::Hold;
use crate::keeper;
use crate::provider::{AcquireRequest, Grant, Interest, LockProvider, LockSpace};
use crate::race::{First, first_of};
use crate::table;
use crate::{LockError, LockErrorKind, LockName};

/// How many grants in a row the process may hand to its own waiters before it asks the server
/// whether another process waits.
const LONGEST_RUN: u32 = 32;
/// And for how long.
const LONGEST_RUN_TIME: Duration = Duration::from_millis(10);
/// How long a caller who gives up waits for the provider to take its request back.
const WITHDRAWAL: Duration = Duration::from_secs(1);
/// What a provider without leases sees as the lease of a request.
const ANY_LEASE: Duration = Duration::from_secs(30);

/// One key of one lock space, and its queue.
pub(crate) struct Slot {
    pub(crate) space: LockSpace,
    pub(crate) hash: u64,
    pub(crate) name: LockName,
    pub(crate) provider: Arc<dyn LockProvider>,
    /// How many `SlotRef`s there are; the table removes the slot with the last one.
    pub(crate) refs: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    last_ticket: u64,
    /// In arrival order, and so in the order of tickets.
    queue: VecDeque<Waiter>,
    /// Waiters that got an error and have not yet looked.
    failed: Vec<(u64, LockError)>,
    run: Run,
    /// Callers who gave up and wait for the abandoned acquisition to end.
    withdrawing: Vec<Waker>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    /// The provider is acquiring for the head of the queue; abandoned if the queue is empty.
    Acquiring(Interest),
    /// `hold` is `None` for locks of this process alone.
    Held { ticket: u64, token: Option<FencingToken>, hold: Option<Arc<Hold>> },
    /// The provider is releasing.
    Releasing,
}

struct Waiter {
    ticket: u64,
    waits: bool,
    lease: Option<Duration>,
    waker: Option<Waker>,
}

/// What is left of the grants that one acquisition may serve inside this process.
#[derive(Default)]
struct Run {
    next_token: Option<FencingToken>,
    left: u32,
    ends: Option<Timestamp>,
}

/// Keeps a slot in the table.
pub(crate) struct SlotRef(Arc<Slot>);

/// What became of an arrival.
enum Arrival {
    Granted(Option<FencingToken>, u64),
    Queued(u64),
}

/// How a release goes on.
pub(crate) enum Release {
    /// Done, without the provider.
    Done,
    /// The provider is being asked; its answer comes here.
    Asked(oneshot::Receiver<Result<(), LockError>>),
    /// The grant had ended before.
    NotHeld,
}

impl Slot {
    pub(crate) fn new(
        space: LockSpace,
        hash: u64,
        name: LockName,
        provider: Arc<dyn LockProvider>,
    ) -> Self {
        Self { space, hash, name, provider, refs: AtomicUsize::new(0), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed in whole steps; a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody holds the key or waits for it, and no call is under way.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        matches!(state.phase, Phase::Idle) && state.queue.is_empty()
    }

    /// The timeout of a waiter has passed: because somebody holds the lock, or because nobody can
    /// tell?
    fn timed_out(&self) -> LockError {
        let trouble = match &self.lock().phase {
            Phase::Acquiring(interest) => interest.trouble(),
            _ => None,
        };
        trouble.unwrap_or_else(|| LockErrorKind::TimedOut.into()).with_name(self.name.clone())
    }

    fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_name(self.name.clone())
    }
}

/// Acquires the slot's lock; waits until `deadline`, or without end if there is none. A `waits` of
/// false tries once.
pub(crate) async fn acquire(
    slot: SlotRef,
    lease: Option<Duration>,
    waits: bool,
    deadline: Option<Timestamp>,
) -> Result<LockGuard, LockError> {
    match slot.arrive(waits, lease)? {
        Arrival::Granted(token, ticket) => Ok(LockGuard::new(slot, ticket, token, None)),
        Arrival::Queued(ticket) => {
            let waiting = Waiting { slot: Some(slot), ticket };
            // Boxed: waiting is slow anyway, and callers' futures stay small.
            Box::pin(waiting.until(deadline)).await
        }
    }
}

/// A place in the queue; given back when dropped.
struct Waiting {
    slot: Option<SlotRef>,
    ticket: u64,
}

impl Waiting {
    async fn until(mut self, deadline: Option<Timestamp>) -> Result<LockGuard, LockError> {
        let ticket = self.ticket;
        let granted = poll_fn(|context| self.poll(context));
        let Some(deadline) = deadline else { return granted.await };
        let timer = keeper::sleep_until(deadline)?;
        if let First::Left(result) = first_of(granted, timer).await {
            return result;
        }
        let Some(slot) = self.slot.as_ref() else { unreachable!("polled to the end") };
        let timed_out = slot.timed_out();
        if slot.leave(ticket) {
            // The last one takes the request back from the server before it answers.
            keeper::within(WITHDRAWAL, slot.withdrawn()).await;
            self.slot = None;
        }
        Err(timed_out)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<LockGuard, LockError>> {
        let Some(slot) = self.slot.take() else { unreachable!("polled after the end") };
        match slot.poll_ticket(self.ticket, context) {
            Poll::Ready(Ok((token, hold))) => {
                Poll::Ready(Ok(LockGuard::new(slot, self.ticket, token, hold)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.slot = Some(slot);
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            slot.leave(self.ticket);
        }
    }
}

impl SlotRef {
    /// For the table, which counts.
    pub(crate) fn counted(slot: Arc<Slot>) -> Self {
        Self(slot)
    }

    /// Takes the lock if it is free and needs nobody's answer; else queues, or is refused.
    fn arrive(&self, waits: bool, lease: Option<Duration>) -> Result<Arrival, LockError> {
        let mut state = self.lock();
        let state = &mut *state;
        let taken = match state.phase {
            Phase::Idle => false,
            Phase::Held { .. } => true,
            // A release, or an acquisition that nobody wants any more, is over soon.
            Phase::Acquiring(_) | Phase::Releasing => !state.queue.is_empty(),
        };
        if taken && !waits {
            return Err(self.error(LockErrorKind::Contended));
        }
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        if matches!(state.phase, Phase::Idle)
            && let Some(token) = self.provider.grant_in_process()
        {
            state.phase = Phase::Held { ticket, token: Some(token), hold: None };
            return Ok(Arrival::Granted(Some(token), ticket));
        }
        state.queue.push_back(Waiter { ticket, waits, lease, waker: None });
        match &state.phase {
            Phase::Idle => self.start_acquiring(state, None),
            Phase::Acquiring(interest) => interest.want_tokens(state.tokens_wanted()),
            Phase::Held { .. } | Phase::Releasing => {}
        }
        Ok(Arrival::Queued(ticket))
    }

    #[allow(clippy::type_complexity)]
    fn poll_ticket(
        &self,
        ticket: u64,
        context: &mut Context<'_>,
    ) -> Poll<Result<(Option<FencingToken>, Option<Arc<Hold>>), LockError>> {
        let mut state = self.lock();
        if let Phase::Held { ticket: holder, token, hold } = &state.phase
            && *holder == ticket
        {
            return Poll::Ready(Ok((*token, hold.clone())));
        }
        if let Some(at) = state.failed.iter().position(|(failed, _)| *failed == ticket) {
            return Poll::Ready(Err(state.failed.swap_remove(at).1));
        }
        match state.place(ticket) {
            Some(at) => {
                let waker = &mut state.queue[at].waker;
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
            // Granted, and lost before the waiter looked.
            None => Poll::Ready(Err(self.error(LockErrorKind::Lost))),
        }
    }

    /// Gives a ticket back, whatever became of it. True if that leaves an acquisition that nobody
    /// wants any more.
    fn leave(&self, ticket: u64) -> bool {
        let mut state = self.lock();
        if let Some(at) = state.place(ticket) {
            state.queue.remove(at);
            return match &state.phase {
                Phase::Acquiring(interest) if state.queue.is_empty() => {
                    interest.abandon();
                    true
                }
                Phase::Acquiring(interest) => {
                    interest.want_tokens(state.tokens_wanted());
                    false
                }
                _ => false,
            };
        }
        state.failed.retain(|(failed, _)| *failed != ticket);
        drop(state);
        self.release(ticket);
        false
    }

    /// Resolves when no acquisition that nobody wants is under way.
    async fn withdrawn(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            match &state.phase {
                Phase::Acquiring(_) if state.queue.is_empty() => {
                    state.withdrawing.push(context.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Ends the grant of this ticket: passes it to the next waiter of this process, or to the
    /// server.
    pub(crate) fn release(&self, ticket: u64) -> Release {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !matches!(state.phase, Phase::Held { ticket: holder, .. } if holder == ticket) {
            return Release::NotHeld;
        }
        let Phase::Held { hold, .. } = mem::take(&mut state.phase) else {
            unreachable!("just looked")
        };
        let Some(hold) = hold else {
            let woken = self.pass_in_process(state);
            drop(guard);
            wake(woken);
            return Release::Done;
        };
        if !hold.is_lost() && state.may_pass(&hold) {
            let woken = state.pass(hold);
            drop(guard);
            wake(woken);
            return Release::Done;
        }
        hold.end();
        if state.queue.is_empty() || hold.is_lost() {
            Release::Asked(self.start_releasing(state, hold))
        } else {
            self.start_acquiring(state, Some(hold));
            Release::Done
        }
    }

    /// The hold has ended by itself: the process has the lock no more, whatever its guard does.
    pub(crate) fn hold_lost(&self, lost: &Hold) {
        let mut state = self.lock();
        if !matches!(&state.phase, Phase::Held { hold: Some(hold), .. } if std::ptr::eq(&**hold, lost))
        {
            return;
        }
        let Phase::Held { hold: Some(hold), .. } = mem::take(&mut state.phase) else {
            unreachable!("just looked")
        };
        hold.end();
        // The server may think otherwise for a while, since our deadline comes before its own.
        self.start_releasing(&mut state, hold);
    }

    fn pass_in_process(&self, state: &mut State) -> Option<Waker> {
        let next = state.queue.pop_front()?;
        state.phase = Phase::Held {
            ticket: next.ticket,
            token: self.provider.grant_in_process(),
            hold: None,
        };
        next.waker
    }

    /// Asks the provider for the head of the queue, giving back `held` in the same step.
    fn start_acquiring(&self, state: &mut State, held: Option<Arc<Hold>>) {
        let Some(head) = state.queue.front() else { return };
        let (waits, lease) = (head.waits, head.lease);
        let ticket = head.ticket;
        let asked = lease.or(self.provider.capabilities().lease).unwrap_or(ANY_LEASE);
        let (request, interest) = match AcquireRequest::new(self.name.clone(), asked, waits) {
            Ok(made) => made,
            Err(error) => return self.fail_all(state, held, &error),
        };
        interest.want_tokens(state.tokens_wanted());
        let slot = self.clone();
        let job = async move {
            let provider = &slot.provider;
            let result = keeper::caught(match &held {
                Some(hold) => provider.pass_on(hold.grant(), &request),
                None => provider.acquire(&request),
            })
            .await;
            drop(held);
            slot.acquired(&request, ticket, lease, result);
        };
        match keeper::run(Box::pin(job)) {
            Ok(()) => state.phase = Phase::Acquiring(interest),
            Err(error) => self.fail_all(state, None, &error),
        }
    }

    fn start_releasing(
        &self,
        state: &mut State,
        hold: Arc<Hold>,
    ) -> oneshot::Receiver<Result<(), LockError>> {
        let (answer, answered) = oneshot::channel();
        let slot = self.clone();
        let job = async move {
            let result = keeper::caught(slot.provider.release(hold.grant())).await;
            drop(hold);
            slot.released();
            // Nobody listens where a guard was dropped.
            let result = result.map_err(|error| error.with_name(slot.name.clone()));
            if let Err(Err(error)) = answer.send(result) {
                crate::observe::release_failed(&error);
            }
        };
        state.phase = match keeper::run(Box::pin(job)) {
            Ok(()) => Phase::Releasing,
            Err(_) => Phase::Idle,
        };
        answered
    }

    fn released(&self) {
        let mut state = self.lock();
        state.phase = Phase::Idle;
        self.start_acquiring(&mut state, None);
    }

    fn acquired(
        &self,
        request: &AcquireRequest,
        ticket: u64,
        lease: Option<Duration>,
        result: Result<Grant, LockError>,
    ) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut woken = mem::take(&mut state.withdrawing);
        state.phase = Phase::Idle;
        let still_first = state.queue.front().is_some_and(|head| head.ticket == ticket);
        match result {
            Ok(grant) => {
                let hold = Hold::new(grant, lease, self);
                let wanted = state.queue.front().is_some_and(|head| head.lease == lease);
                if !wanted || hold.is_lost() {
                    // Nobody is left who wanted this one, or it took longer than it lasts.
                    if wanted && !request.waits() {
                        let late = self
                            .error(LockErrorKind::ProviderUnavailable)
                            .with_detail("the answer came after the lease had ended");
                        woken.extend(state.fail_first(late));
                    }
                    self.start_releasing(state, hold);
                } else {
                    let hold = hold.watch();
                    state.run.start(&hold, self.provider.capabilities().local_hand_over);
                    woken.extend(state.pass(hold));
                }
            }
            Err(error) if error.kind() == LockErrorKind::Contended && !request.waits() => {
                if still_first {
                    woken.extend(state.fail_first(error.with_name(self.name.clone())));
                }
                self.start_acquiring(state, None);
            }
            Err(error) if request.is_abandoned() => {
                tracing::debug!(name = %self.name, %error, "an abandoned acquisition ended");
                self.start_acquiring(state, None);
            }
            Err(error) => {
                let error = error.with_name(self.name.clone());
                while !state.queue.is_empty() {
                    woken.extend(state.fail_first(error.clone()));
                }
            }
        }
        drop(guard);
        wake(woken);
    }

    /// The keeper could not even be asked.
    fn fail_all(&self, state: &mut State, held: Option<Arc<Hold>>, error: &LockError) {
        state.phase = Phase::Idle;
        let mut woken = Vec::new();
        while !state.queue.is_empty() {
            woken.extend(state.fail_first(error.clone().with_name(self.name.clone())));
        }
        wake(woken);
        if let Some(hold) = held {
            self.start_releasing(state, hold);
        }
    }

    /// Ends what the slot holds and fails who waits for it. Locks of the process alone are left:
    /// they end with it.
    pub(crate) fn shut_down(&self) {
        let error = LockError::new(LockErrorKind::ProviderUnavailable)
            .with_name(self.name.clone())
            .with_detail("the process is shutting its locks down");
        let mut guard = self.lock();
        let state = &mut *guard;
        let held = match &state.phase {
            Phase::Held { hold: None, .. } => return,
            Phase::Held { hold: Some(hold), .. } => Some(hold.clone()),
            Phase::Acquiring(interest) => {
                interest.abandon();
                None
            }
            Phase::Idle | Phase::Releasing => None,
        };
        let mut woken = Vec::new();
        while !state.queue.is_empty() {
            woken.extend(state.fail_first(error.clone()));
        }
        drop(guard);
        wake(woken);
        if let Some(hold) = held {
            hold.lose("the process shut its locks down");
        }
    }
}

impl State {
    fn place(&self, ticket: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()
    }

    fn tokens_wanted(&self) -> NonZeroU32 {
        let waiting = u32::try_from(self.queue.len()).unwrap_or(LONGEST_RUN);
        NonZeroU32::new(waiting.min(LONGEST_RUN)).unwrap_or(NonZeroU32::MIN)
    }

    /// Whether the next waiter may have this hold without the server.
    fn may_pass(&self, hold: &Hold) -> bool {
        self.run.left > 0
            && self.queue.front().is_some_and(|head| head.lease == hold.lease_asked())
            && self.run.ends.is_some_and(|end| !end.has_passed())
    }

    /// Gives the hold to the head of the queue, whom to wake then.
    fn pass(&mut self, hold: Arc<Hold>) -> Option<Waker> {
        let next = self.queue.pop_front()?;
        let token = self.run.take();
        self.phase = Phase::Held { ticket: next.ticket, token, hold: Some(hold) };
        next.waker
    }

    fn fail_first(&mut self, error: LockError) -> Option<Waker> {
        let first = self.queue.pop_front()?;
        self.failed.push((first.ticket, error));
        first.waker
    }
}

impl Run {
    fn start(&mut self, hold: &Hold, local_hand_over: bool) {
        let grant = hold.grant();
        self.next_token = grant.token();
        self.left = match (local_hand_over, grant.token()) {
            (false, _) => 1,
            (true, Some(_)) => grant.tokens().get().min(LONGEST_RUN),
            (true, None) => LONGEST_RUN,
        };
        self.ends = Some(Timestamp::now() + LONGEST_RUN_TIME);
    }

    fn take(&mut self) -> Option<FencingToken> {
        self.left = self.left.saturating_sub(1);
        let token = self.next_token?;
        self.next_token = Some(token.next());
        Some(token)
    }
}

fn wake(woken: impl IntoIterator<Item = Waker>) {
    for waker in woken {
        waker.wake();
    }
}

impl Clone for SlotRef {
    fn clone(&self) -> Self {
        // There is a reference already, so the table cannot be removing the slot.
        self.0.refs.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for SlotRef {
    fn drop(&mut self) {
        table::forget(&self.0);
    }
}

impl Deref for SlotRef {
    type Target = Arc<Slot>;

    fn deref(&self) -> &Arc<Slot> {
        &self.0
    }
}
