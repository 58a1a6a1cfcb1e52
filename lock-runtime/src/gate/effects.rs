//! `Effects`: what a change of a slot's state leads to.

use std::task::Waker;

use super::queue::Waiter;
use crate::call_queue::Lane;
use crate::provider::Interest;
use crate::{background, wake};

/// What a change of a slot's state leads to, once the slot's lock is free. Wakers, destructors and
/// signals may run code of users and providers, which must not run under that lock.
#[derive(Default)]
#[must_use]
pub(super) struct Effects {
    /// Apart from the rest, since most changes wake one waiter and lead to nothing else.
    pub(super) first: Option<Waker>,
    /// Where a call has become due.
    lane: Option<Lane>,
    more: Option<Box<More>>,
}

#[derive(Default)]
pub(super) struct More {
    wakers: Vec<Waker>,
    lanes: Vec<Lane>,
    pub(super) waiters: Vec<Waiter>,
    abandoned: Option<Interest>,
    jobs: Vec<background::Job>,
    later: Vec<Box<dyn FnOnce() + Send>>,
}

impl Effects {
    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Adds a waker to be woken.
    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        if self.first.is_none() {
            self.first = waker;
        } else if let Some(waker) = waker {
            self.more().wakers.push(waker);
        }
    }

    /// Adds a lane to be run, since a call has become due there.
    pub(super) fn run(&mut self, lane: Option<Lane>) {
        if self.lane.is_none() {
            self.lane = lane;
        } else if let Some(lane) = lane {
            self.more().lanes.push(lane);
        }
    }

    /// Adds a waiter to be dropped.
    pub(super) fn drop_later(&mut self, waiter: Waiter) {
        self.more().waiters.push(waiter);
    }

    /// Adds the interest in an acquisition that no caller wants any more.
    pub(super) fn abandon(&mut self, interest: Interest) {
        self.more().abandoned = Some(interest);
    }

    /// Adds a job to be dropped, since the background thread did not take it.
    pub(super) fn drop_job(&mut self, job: background::Job) {
        self.more().jobs.push(job);
    }

    /// Adds work to be done before any task is woken.
    pub(super) fn later(&mut self, work: impl FnOnce() + Send + 'static) {
        self.more().later.push(Box::new(work));
    }

    /// Adds all of `other`.
    pub(super) fn extend(&mut self, other: Self) {
        self.wake(other.first);
        self.run(other.lane);
        let Some(other) = other.more else {
            return;
        };
        let more = self.more();
        more.wakers.extend(other.wakers);
        more.lanes.extend(other.lanes);
        more.waiters.extend(other.waiters);
        more.jobs.extend(other.jobs);
        more.later.extend(other.later);
        if other.abandoned.is_some() {
            more.abandoned = other.abandoned;
        }
    }

    /// Does all of it. The caller must not hold the slot's lock.
    pub(super) fn happen(self) {
        let Some(more) = self.more else {
            // First, since a waker may run a task that waits for this call.
            if let Some(lane) = self.lane {
                lane.run();
            }
            if let Some(waker) = self.first {
                wake::one(waker);
            }
            return;
        };
        // First, so that the log has its line before a caller goes on.
        for work in more.later {
            wake::survive(work);
        }
        for lane in self.lane.into_iter().chain(more.lanes) {
            lane.run();
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
