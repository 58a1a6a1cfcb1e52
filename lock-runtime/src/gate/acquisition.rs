//! The call that acquires the lock from the provider, for the head of the queue.
//!
//! What follows from its answer is in `granted`.

use std::sync::Arc;
use std::time::Duration;

use super::effects::Effects;
use super::queue::Waiter;
use super::release_answer::ReleaseMode;
use super::slot::{Slot, SlotRef};
use super::state::{Phase, State};
use crate::background::Done;
use crate::call::{Panicked, measured};
use crate::call_queue::DueCall;
use crate::clock::{Span, Timestamp};
use crate::error::{LockError, LockErrorKind};
use crate::future::select;
use crate::lease::Lease;
use crate::provider::{AcquireCall, AcquireCaller, AcquireRequest, Call, Grant};
use crate::source::Source;
use crate::{background, wake};

/// What a provider without leases sees as the lease of a request.
pub(super) const ANY_LEASE: Duration = Duration::from_secs(30);
/// How many of the first waiters may have a say in the lease of a grant that is to serve several.
pub(super) const SERVED: usize = 32;
/// How long the release of what a panic left behind may hold up other callers.
const UNDOING: Duration = Duration::from_secs(1);

/// Who gets the answer to an acquisition that went together with others.
struct Caller {
    slot: SlotRef,
    ticket: u64,
    /// What is given up in the same step.
    held: Option<Arc<Lease>>,
    _done: Done,
}

impl AcquireCaller for Caller {
    fn answered(
        self: Box<Self>,
        request: &AcquireRequest,
        answer: Option<Result<Grant, LockError>>,
    ) {
        let Some(answer) = answer else {
            return self.panicked(request);
        };
        let Self {
            slot, ticket, held, ..
        } = *self;
        wake::survive(|| drop(held));
        slot.acquired(request, ticket, answer);
    }
}

impl Caller {
    /// Releases what a call that panicked may have left, and then fails.
    fn panicked(self: Box<Self>, request: &AcquireRequest) {
        let left = Arc::new(Grant::new(request, Timestamp::now()));
        let request = request.same();
        background::spawn(async move {
            if let Some(lease) = &self.held {
                self.slot.undo(lease.shared_grant()).await;
            }
            self.slot.undo(left).await;
            self.slot
                .acquired(&request, self.ticket, Err(Panicked.into()));
            wake::survive(|| drop(self));
        });
    }
}

/// Returns the lease that a call of this provider asks for, for a caller who wants this one.
pub(super) fn lease_asked(source: &Source, lease: Span) -> Duration {
    let default = source.capabilities().lease;
    lease.get().or(default).unwrap_or(ANY_LEASE)
}

impl Slot {
    /// Returns the provider that makes this waiter's calls.
    pub(super) fn source_of<'a, W>(&'a self, waiter: &'a Waiter<W>) -> &'a Arc<Source> {
        waiter.source.as_ref().unwrap_or(&self.first)
    }

    /// Returns the lease that a call for this waiter alone would ask for.
    pub(super) fn lease_of<W>(&self, waiter: &Waiter<W>) -> Duration {
        lease_asked(self.source_of(waiter), waiter.lease)
    }

    /// Returns the lease to ask for: the head's own, or a little more if that serves more waiters.
    fn lease_for(&self, state: &State, head: &Waiter) -> Duration {
        let own = self.lease_of(head);
        let source = self.source_of(head);
        if state.exactly || source.capabilities().lease.is_none() {
            return own;
        }
        let others = state.queue.iter().take(SERVED);
        others
            .filter(|other| self.source_of(other).is_like(source))
            .map(|other| self.lease_of(other))
            .filter(|lease| Lease::may_serve(*lease, own))
            .max()
            .unwrap_or(own)
    }
}

impl SlotRef {
    /// Asks the provider for the lock, for the head of the queue. Gives `held` back in the same
    /// step.
    pub(super) fn start_acquiring(&self, state: &mut State, held: Option<Arc<Lease>>) -> Effects {
        let Some(head) = state.queue.front() else {
            return Effects::default();
        };
        let (ticket, waits) = (head.ticket, head.waits);
        let asked = self.lease_for(state, head);
        let slot = self.on_behalf_of(head);
        state.exactly = false;
        let (request, interest) = match AcquireRequest::new(self.name.clone(), asked, waits) {
            Ok((request, interest)) => (request.made_for(self.address()), interest),
            Err(error) => return self.fail_all(state, held, &error),
        };
        interest.want_tokens(state.tokens_wanted());
        let lane = match slot.source().calls() {
            Some(calls) => match background::count() {
                Ok(done) => {
                    let calls = Arc::clone(calls);
                    calls.push(slot.grouped(ticket, request, held, done))
                }
                Err(error) => return self.fail_all(state, held, &error),
            },
            None => {
                let job = async move {
                    let result = slot.ask(&request, held).await;
                    slot.acquired(&request, ticket, result);
                };
                if let Err((error, job)) = background::run(job) {
                    let mut effects = self.fail_all(state, None, &error);
                    effects.drop_job(job);
                    return effects;
                }
                None
            }
        };
        state.phase = Phase::Acquiring(interest);
        self.look_at_call(state);
        let mut effects = match state.has_sharers() {
            false => Effects::default(),
            // The sharers share the answer to this call now.
            true => self.shares(state),
        };
        effects.run(lane);
        effects
    }

    /// Makes a call of the acquisition, which goes together with others.
    pub(super) fn grouped(
        self,
        ticket: u64,
        request: AcquireRequest,
        held: Option<Arc<Lease>>,
        done: Done,
    ) -> DueCall {
        let source = self.source();
        let (provider, name) = (Arc::clone(&source.provider), source.name());
        let gives_up = held.as_ref().map(|lease| lease.shared_grant());
        let caller = Box::new(Caller {
            slot: self,
            ticket,
            held,
            _done: done,
        });
        DueCall {
            provider,
            name,
            call: Call::Acquire(AcquireCall::new(request, gives_up, caller)),
            watch: None,
        }
    }

    /// Makes the calls of one acquisition, and returns the answer.
    pub(super) async fn ask(
        &self,
        request: &AcquireRequest,
        held: Option<Arc<Lease>>,
    ) -> Result<Grant, LockError> {
        let source = self.source();
        let says_what_it_sees = source.capabilities().reports_contention;
        if held.is_none() && request.waits() && !says_what_it_sees {
            // A first call that does not wait tells a lock that is held from a server that hangs.
            let (first, _) = AcquireRequest::new(self.name.clone(), request.lease(), false)?;
            let first = first.with_mode(request.mode()).made_for(self.address());
            match self.call(&first, None).await {
                Err(error) if error.kind() == LockErrorKind::Contended => {
                    request.report_contention();
                    if request.is_abandoned() {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
        let result = self.call(request, held.as_ref()).await;
        wake::survive(|| drop(held));
        result
    }

    /// Makes one call. If it panics, what it may have left on the server is released.
    async fn call(
        &self,
        request: &AcquireRequest,
        held: Option<&Arc<Lease>>,
    ) -> Result<Grant, LockError> {
        let source = self.source();
        let provider = &source.provider;
        let operation = if held.is_some() { "pass_on" } else { "acquire" };
        let answer = measured(source.name(), operation, async {
            match held {
                Some(lease) => provider.pass_on(lease.grant(), request).await,
                None => provider.acquire(request).await,
            }
        });
        match answer.await {
            Ok(answer) => answer,
            Err(Panicked) => {
                if let Some(lease) = held {
                    self.undo(lease.shared_grant()).await;
                }
                self.undo(Arc::new(Grant::new(request, Timestamp::now())))
                    .await;
                Err(Panicked.into())
            }
        }
    }

    /// Releases what a call that panicked may have left. If it left nothing, the provider finds
    /// that out.
    pub(super) async fn undo(&self, grant: Arc<Grant>) {
        let slot = self.clone();
        let undoing = background::spawn_beside(async move {
            let source = slot.source();
            let release = async { source.provider.release(&grant).await };
            let _ = measured(source.name(), "release", release).await;
        });
        select(undoing, tokio::time::sleep(UNDOING)).await;
    }

    /// Goes on with the next waiter after a release.
    pub(super) fn released(&self) {
        if self.shared.is_some() {
            return self.share_is_released();
        }
        let mut state = self.lock();
        state.enter(Phase::Idle);
        let effects = self.start_acquiring(&mut state, None);
        drop(state);
        effects.happen();
    }

    /// Fails every waiter, since the call could not be started, and releases `held`.
    fn fail_all(&self, state: &mut State, held: Option<Arc<Lease>>, error: &LockError) -> Effects {
        state.enter(Phase::Idle);
        let mut effects = state.fail(&error.clone().with_name(self.name.clone()), |_| true);
        if let Some(lease) = held {
            effects.extend(
                self.start_releasing(state, lease, ReleaseMode::Confirmed, None)
                    .1,
            );
        }
        effects
    }
}
