//! What a change of a slot's state leads to, once its lock is free.

use std::task::Waker;

use super::queue::Waiter;
use crate::provider::Interest;
use crate::{background, wake};

/// What a change of the state leads to, once its lock is free: wakers, destructors and signals may
/// run anybody's code.
#[derive(Default)]
#[must_use]
pub(super) struct Effects {
    /// Most changes wake one, and lead to nothing else.
    pub(super) first: Option<Waker>,
    more: Option<Box<More>>,
}

#[derive(Default)]
pub(super) struct More {
    wakers: Vec<Waker>,
    pub(super) waiters: Vec<Waiter>,
    abandoned: Option<Interest>,
    jobs: Vec<background::Job>,
    later: Vec<Box<dyn FnOnce() + Send>>,
}

impl Effects {
    pub(super) fn more(&mut self) -> &mut More {
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
    pub(super) fn drop_job(&mut self, job: background::Job) {
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
