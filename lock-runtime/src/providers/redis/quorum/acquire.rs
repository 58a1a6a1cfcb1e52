//! Acquiring: a turn on the first server, and then the votes of a majority.

use std::pin::pin;
use std::time::Duration;

use super::super::acquire::acquire as acquire_on;
use super::super::cleanup::Cleanup;
use super::members::Members;
use super::trace::Trace;
use super::turn::{Failed, vote};
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::provider::{AcquireRequest, Grant};
use crate::providers::kit::backoff::{doubled, jittered};
use crate::providers::kit::outage::Outage;
use crate::{LockError, LockErrorKind};

/// The pauses between requests for votes that others have: doubled from one to the other.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A client whose turn comes to nothing leaves it to the next after so many requests for votes:
/// two that wait for each other's would wait for ever.
const VOTES_PER_TURN: u32 = 4;
/// A try asks so often, since what an earlier holder has given back may not have arrived everywhere.
const VOTES_PER_TRY: u32 = 2;
/// How long a try, or one request of a waiter, waits for servers to be reached.
const LONGEST_REACH: Duration = Duration::from_millis(500);
/// How often a waiter looks whether a majority is there.
const LOOKS_EVERY: Duration = Duration::from_millis(200);

/// One acquisition under way.
struct Acquisition<'a> {
    members: &'a Members,
    request: &'a AcquireRequest,
    trace: Trace<'a>,
    outage: Outage,
    /// How often votes were asked for in vain.
    failures: u32,
    /// How many servers may still fail under a try.
    spare: usize,
}

/// Acquires the lock. A waiter puts up with an outage for so long.
pub(super) async fn acquire(
    members: &Members,
    request: &AcquireRequest,
    failover_timeout: Duration,
) -> Result<Grant, LockError> {
    let mut acquisition = Acquisition {
        members,
        request,
        trace: Trace::new(members, request),
        outage: Outage::new(failover_timeout),
        failures: 0,
        spare: members.all().len() - members.majority(),
    };
    loop {
        if let Some(grant) = acquisition.attempt().await? {
            return Ok(grant);
        }
    }
}

impl Acquisition<'_> {
    /// Makes one attempt; `None` if another is to follow.
    async fn attempt(&mut self) -> Result<Option<Grant>, LockError> {
        let Some(number) = self.reach().await? else {
            return Ok(None);
        };
        let manager = &self.members.all()[number].manager;
        let turn = match self.await_turn(number).await {
            Some(Ok(turn)) => turn,
            Some(Err(error)) => return self.on_no_turn(number, error).await,
            None => return Ok(None),
        };
        // What the turn has left unanswered is over when this acquisition has another owner.
        let connection = manager.current();
        if let Some(connection) = &connection {
            self.trace.note(number, Timestamp::now(), connection);
        }
        let outcome = self.vote(number).await;
        if outcome.as_ref().is_ok_and(Option::is_some) {
            Cleanup::of_grant(manager, &turn);
            if connection.is_none() {
                self.trace.leave_queue_of(number);
            }
        }
        outcome
    }

    /// Waits for a majority, and returns the server whose queue is to be used; `None` if a waiter is
    /// to look again.
    async fn reach(&mut self) -> Result<Option<usize>, LockError> {
        let limit = self.members.common().response_timeout.min(LONGEST_REACH);
        let reaching = self.members.wait_for_majority(limit);
        match select(reaching, self.request.abandoned()).await {
            First::Left(Ok(())) => {}
            First::Left(Err(error)) if self.outage.tolerates(self.request, &error) => {
                return Ok(None);
            }
            First::Left(Err(error)) => return Err(error),
            First::Right(()) => return Err(LockErrorKind::Contended.into()),
        }
        // It may be what a server said that is not asked any more.
        self.request.report_trouble(None);
        self.outage.is_over(self.request);
        Ok(self.members.first().map(|(number, _)| number))
    }

    /// Waits in the queue of this server. Leaves it if a server before it may vote again, whose queue
    /// all others use; then there is no outcome.
    async fn await_turn(&mut self, number: usize) -> Option<Result<Grant, LockError>> {
        let (members, request) = (self.members, self.request);
        let mut waiting = pin!(acquire_on(&members.all()[number].manager, request, None));
        loop {
            let looking = tokio::time::sleep(LOOKS_EVERY);
            if let First::Left(outcome) = select(waiting.as_mut(), looking).await {
                return Some(outcome);
            }
            if !request.waits() {
                // It is bounded by itself.
                continue;
            }
            let leaves = match members.check_majority() {
                Ok(()) => {
                    self.outage.is_over(request);
                    let is_before = |(first, _)| first < number;
                    members.first().is_some_and(is_before).then_some(None)
                }
                Err(error) if self.outage.tolerates(request, &error) => None,
                Err(error) => Some(Some(Err(error))),
            };
            if let Some(outcome) = leaves {
                self.trace.leave_queue_of(number);
                request.report_unanswered(false);
                return outcome;
            }
        }
    }

    async fn on_no_turn(
        &mut self,
        number: usize,
        error: LockError,
    ) -> Result<Option<Grant>, LockError> {
        let request = self.request;
        if request.is_abandoned() {
            return Err(error);
        }
        if error.kind() == LockErrorKind::Contended {
            // One server has said so. It is contention only if a majority is there.
            self.members.check_answers(self.trace.keys.clone()).await?;
            return Err(error);
        }
        if !error.is_retryable() {
            return Err(error);
        }
        // The next server is to be asked, if this one has failed.
        let has_failed = !self.members.all()[number].may_vote();
        let again = match request.waits() {
            true => self.outage.tolerates(request, &error),
            false => has_failed && self.spare > 0,
        };
        self.spare = self.spare.saturating_sub(1);
        match again {
            true => Ok(None),
            false => Err(error),
        }
    }

    /// Asks for votes until the turn is over; `None` if it has come to nothing.
    async fn vote(&mut self, queue: usize) -> Result<Option<Grant>, LockError> {
        let request = self.request;
        loop {
            let error = match vote(self.members, request, &mut self.trace).await {
                Ok(grant) => return Ok(Some(grant)),
                Err(Failed::Refused(error)) => {
                    if let Some(holder) = error.holder() {
                        request.report_holder(holder.clone());
                    }
                    error
                }
                Err(Failed::Unanswered(error)) => error,
            };
            self.failures += 1;
            let is_over = match error.kind() {
                LockErrorKind::Contended if request.waits() => false,
                LockErrorKind::Contended => self.failures >= VOTES_PER_TRY,
                _ => !self.outage.tolerates(request, &error),
            };
            if is_over || request.is_abandoned() {
                self.trace.take_back(None).await;
                return Err(match request.is_abandoned() {
                    true => LockErrorKind::Contended.into(),
                    false => error,
                });
            }
            // With the vote of the queue's server, its turn goes on.
            let leaves = self.failures.is_multiple_of(VOTES_PER_TURN)
                || self.members.check_majority().is_err()
                || self.members.first().is_none_or(|(first, _)| first != queue);
            let keeps = (!leaves).then_some(queue);
            self.trace.take_back(keeps).await;
            let pause = doubled(SHORTEST_PAUSE, self.failures - 1, LONGEST_PAUSE);
            let pausing = tokio::time::sleep(jittered(pause));
            if let First::Left(()) = select(request.abandoned(), pausing).await {
                self.trace.take_back(None).await;
                return Err(LockErrorKind::Contended.into());
            }
            if leaves {
                return Ok(None);
            }
        }
    }
}
