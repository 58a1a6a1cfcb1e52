//! Those who wait for one slot, in arrival order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::clock::{Span, Timestamp};
use crate::source::Source;

/// A queue of this length may consist of places that were given up.
const UNTIDY: usize = 32;

pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) waits: bool,
    pub(super) lease: Span,
    /// When its caller's timeout passes, if ever.
    pub(super) until: Timestamp,
    pub(super) template: &'static str,
    /// Whose calls it wants, if not those of the slot's first provider.
    pub(super) source: Option<Arc<Source>>,
    pub(super) waker: Option<Waker>,
    /// It has left; its place goes when its turn comes, or when too many are like it.
    pub(super) left: bool,
}

impl Waiter {
    const EMPTY: Self = Self {
        ticket: 0,
        waits: false,
        lease: Span::NONE,
        until: Timestamp::NONE,
        template: "",
        source: None,
        waker: None,
        left: false,
    };
}

/// In the order of tickets. Every step takes the same time however many wait, or, like the search
/// for a ticket, its logarithm.
#[derive(Default)]
pub(super) struct Queue {
    waiters: VecDeque<Waiter>,
    present: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.present
    }

    pub(super) fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// Adds one that is filled in where it stands: a whole one would be written twice, and read
    /// back before the processor is done with the first.
    #[inline]
    pub(super) fn push(&mut self, ticket: u64) -> &mut Waiter {
        self.present += 1;
        self.waiters.push_back(Waiter::EMPTY);
        let Some(waiter) = self.waiters.back_mut() else {
            unreachable!("just added")
        };
        waiter.ticket = ticket;
        waiter
    }

    /// The first of those who wait; the first place never is one that was given up.
    pub(super) fn front(&self) -> Option<&Waiter> {
        self.waiters.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter().filter(|waiter| !waiter.left)
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Waiter> {
        let first = self.waiters.pop_front()?;
        self.present -= 1;
        self.tidy();
        Some(first)
    }

    pub(super) fn get(&mut self, ticket: u64) -> Option<&mut Waiter> {
        let at = self.find(ticket)?;
        self.waiters.get_mut(at).filter(|waiter| !waiter.left)
    }

    /// Takes this one out.
    pub(super) fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let at = self.find(ticket)?;
        let place = self.waiters.get_mut(at).filter(|waiter| !waiter.left)?;
        let gone = Waiter {
            ticket,
            left: true,
            ..Waiter::EMPTY
        };
        let removed = std::mem::replace(place, gone);
        self.present -= 1;
        self.tidy();
        Some(removed)
    }

    /// Takes those out for whom this is true.
    pub(super) fn take(&mut self, mut which: impl FnMut(&Waiter) -> bool) -> Vec<Waiter> {
        let mut taken = Vec::new();
        let mut kept = VecDeque::new();
        for waiter in self.waiters.drain(..) {
            if waiter.left {
                continue;
            }
            if which(&waiter) {
                taken.push(waiter);
            } else {
                kept.push_back(waiter);
            }
        }
        self.present = kept.len();
        self.waiters = kept;
        taken
    }

    fn find(&self, ticket: u64) -> Option<usize> {
        self.waiters
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
            .ok()
    }

    fn tidy(&mut self) {
        while self.waiters.front().is_some_and(|waiter| waiter.left) {
            self.waiters.pop_front();
        }
        if self.waiters.len() > UNTIDY && self.present < self.waiters.len() / 2 {
            self.waiters.retain(|waiter| !waiter.left);
        }
    }
}
