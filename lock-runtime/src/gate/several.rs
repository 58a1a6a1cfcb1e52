//! Asking for several locks in one call of their provider, each at the head of its slot's queue.
//!
//! The call never waits. It takes what is free up to the first lock that is held. The places in the
//! queues after that one are given up, so that no place is kept for a lock while a lower one is
//! waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::acquisition::lease_asked;
use super::shared_state::{self, UnderWay};
use super::slot::{SlotRef, Wanted};
use super::state::{Phase, State};
use crate::background;
use crate::call::{Panicked, caught_now, measured};
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::future::join_all;
use crate::provider::{AcquireRequest, Grant, Interest, LockMode};
use crate::source::Source;

/// A lock that is wanted together with others.
pub(crate) struct Sought<'a> {
    pub(crate) slot: &'a SlotRef,
    pub(crate) mode: LockMode,
    pub(crate) wanted: Wanted,
}

/// What has become of the wish to ask for several locks at once.
pub(crate) enum Together {
    /// They were asked for: as many of them as there are tickets.
    Asked(Vec<u64>, Reach),
    /// Not now, since not even two of them are free in this process.
    NotNow,
    /// The provider cannot do this.
    Unable,
}

/// How many of the locks were asked for: all, or those up to the first that is held. It is known
/// once a ticket has its answer.
#[derive(Clone)]
pub(crate) struct Reach(Arc<AtomicUsize>);

impl Reach {
    fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    fn set(&self, count: usize) {
        self.0.store(count, Ordering::Release);
    }

    /// Tells whether the lock at this place was asked for.
    pub(crate) fn includes(&self, place: usize) -> bool {
        place < self.0.load(Ordering::Acquire)
    }
}

/// A lock that the call asks for.
struct Asked {
    slot: SlotRef,
    ticket: u64,
    interest: Interest,
}

/// Asks for the first of these locks in one call, as many as are free in this process. They must be
/// in the order in which all processes take them. `until` is when the callers' time is up, if ever.
///
/// # Errors
///
/// If the call could not be started.
pub(crate) fn ask_together(sought: &[Sought<'_>], until: Timestamp) -> Result<Together, LockError> {
    let Some(first) = sought.first() else {
        return Ok(Together::NotNow);
    };
    let source = first.slot.source();
    let are_free = |sought: &&Sought<'_>| {
        sought.slot.has_nobody_here() && sought.slot.source().is_like(source)
    };
    let count = sought.iter().take_while(are_free).count();
    if count < 2 {
        return Ok(Together::NotNow);
    }
    let mut requests = Vec::with_capacity(count);
    let mut interests = Vec::with_capacity(count);
    for one in &sought[..count] {
        let (request, interest) = one.slot.request_at_once(one)?;
        requests.push(request);
        interests.push(interest);
    }
    // It does nothing before it is polled.
    let is_able = caught_now(|| source.provider.acquire_several(&requests).is_some())?;
    if !is_able {
        return Ok(Together::Unable);
    }
    let mut asked = Vec::with_capacity(count);
    for (one, interest) in sought.iter().zip(interests) {
        // Somebody may have come since.
        let Some(ticket) = one.slot.take_first_place(one, until, &interest) else {
            break;
        };
        let slot = one.slot.clone();
        asked.push(Asked {
            slot,
            ticket,
            interest,
        });
    }
    requests.truncate(asked.len());
    let tickets: Vec<_> = asked.iter().map(|asked| asked.ticket).collect();
    if tickets.is_empty() {
        return Ok(Together::NotNow);
    }
    let reach = Reach::new();
    let call = Call {
        asked,
        requests,
        reach: reach.clone(),
    };
    call.start(source)?;
    Ok(Together::Asked(tickets, reach))
}

impl SlotRef {
    /// Tells whether nobody of this process has the lock, waits for it or asks for it.
    fn has_nobody_here(&self) -> bool {
        if self.first.is_closed() || self.source().ask().is_ok_and(|facts| facts.in_process) {
            return false;
        }
        match &self.shared {
            Some(shared) => shared.lock().has_nobody(),
            None => self.lock().has_nobody(),
        }
    }

    fn request_at_once(
        &self,
        sought: &Sought<'_>,
    ) -> Result<(AcquireRequest, Interest), LockError> {
        let lease = lease_asked(self.source(), sought.wanted.lease);
        let (request, interest) = AcquireRequest::new(self.name.clone(), lease, false)
            .map_err(|error| error.with_name(self.name.clone()))?;
        let request = request.with_mode(sought.mode).made_for(self.address());
        Ok((request, interest))
    }

    /// Takes the first place in the queue, and notes that the provider is asked. `None` if somebody
    /// of this process has the lock or wants it.
    fn take_first_place(
        &self,
        sought: &Sought<'_>,
        until: Timestamp,
        interest: &Interest,
    ) -> Option<u64> {
        let wanted = &sought.wanted;
        if let Some(shared) = &self.shared {
            let mut state = shared.lock();
            if !state.has_nobody() {
                return None;
            }
            let ticket = state.push(sought.mode, wanted, until);
            if let Some(waiter) = state.queue.get(ticket) {
                waiter.source.clone_from(&self.other);
            }
            state.exactly = false;
            state.call = Some(UnderWay::Acquire {
                mode: sought.mode,
                interest: interest.clone(),
                sent_at: Timestamp::now(),
            });
            self.look_at_shared_call(&mut state);
            return Some(ticket);
        }
        let mut state = self.lock();
        if !state.has_nobody() {
            return None;
        }
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        let waiter = state.queue.push(ticket);
        wanted.describe(waiter, until);
        waiter.source.clone_from(&self.other);
        state.exactly = false;
        state.phase = Phase::Acquiring(interest.clone());
        self.look_at_call(&mut state);
        Some(ticket)
    }

    /// Gives a place up whose lock was not asked for. Whoever comes after it is served by a call of
    /// its own.
    fn withdraw(&self, ticket: u64, interest: &Interest) {
        match &self.shared {
            Some(_) => self.leave_shared(ticket),
            None => self.leave(ticket),
        };
        interest.abandon();
    }
}

impl State {
    /// Tells whether nobody of this process has the lock, waits for it or asks for it.
    fn has_nobody(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.queue.is_empty() && !self.rests()
    }
}

impl shared_state::State {
    /// Tells the same of a lock that may have several holders.
    fn has_nobody(&self) -> bool {
        self.is_idle() && !self.paused && !self.rests()
    }
}

/// A call that asks for several locks.
struct Call {
    asked: Vec<Asked>,
    requests: Vec<AcquireRequest>,
    reach: Reach,
}

impl Call {
    /// Starts the call, on this thread if the provider's calls may be made here.
    fn start(self, source: &Source) -> Result<(), LockError> {
        if let Some(calls) = source.calls() {
            // If this fails, what the call is dropped with answers the tickets.
            let done = background::count()?;
            let job = Box::pin(async move {
                self.make().await;
                drop(done);
            });
            if let Some(lane) = calls.push_alone(job) {
                lane.run();
            }
            return Ok(());
        }
        background::run(self.make()).map_err(|(error, job)| {
            drop(job);
            error
        })
    }

    /// Makes the call, and gives each ticket its answer.
    async fn make(mut self) {
        let Some(first) = self.asked.first() else {
            return;
        };
        let source = Arc::clone(first.slot.source());
        let made = async {
            match source.provider.acquire_several(&self.requests) {
                Some(answers) => answers.await,
                None => Vec::new(),
            }
        };
        let answers = match measured(source.name(), "acquire_several", made).await {
            Ok(answers) => answers,
            Err(Panicked) => {
                self.undo().await;
                self.requests.iter().map(|_| Err(Panicked.into())).collect()
            }
        };
        self.answer(answers);
    }

    /// Releases what a call that panicked may have left.
    async fn undo(&self) {
        let left = self.asked.iter().zip(&self.requests);
        let undoing = left.map(|(asked, request)| {
            let grant = Arc::new(Grant::new(request, Timestamp::now()));
            Box::pin(asked.slot.undo(grant)) as _
        });
        join_all(undoing.collect()).await;
    }

    fn answer(&mut self, answers: Vec<Result<Grant, LockError>>) {
        let is_held = |answer: &Result<Grant, LockError>| {
            let error = answer.as_ref().err();
            error.is_some_and(|error| error.kind() == LockErrorKind::Contended)
        };
        let asked_for = answers
            .iter()
            .position(is_held)
            .map_or(usize::MAX, |held| held + 1);
        // First, since a ticket's caller looks at it next.
        self.reach.set(asked_for);
        let mut answers = answers.into_iter();
        let asked = self.asked.drain(..).zip(self.requests.drain(..));
        for (place, (asked, request)) in asked.enumerate() {
            let answer = answers.next().unwrap_or_else(|| {
                Err(LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail("the provider did not answer for each of several locks"))
            });
            if place >= asked_for {
                asked.slot.withdraw(asked.ticket, &asked.interest);
            }
            asked.slot.acquired(&request, asked.ticket, answer);
        }
    }
}

impl Drop for Call {
    /// Answers what has no answer, since the call was not made.
    fn drop(&mut self) {
        if !self.asked.is_empty() {
            self.answer(Vec::new());
        }
    }
}
