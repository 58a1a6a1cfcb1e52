//! The waiters of one slot, in arrival order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::clock::{Span, Timestamp};
use crate::source::Source;

/// A queue that is longer than this is tidied when most of its places were given up.
const UNTIDY: usize = 32;

/// A caller that waits for the lock, or for the answer to its try. `W` is what else its slot's kind
/// must know of it.
pub(super) struct Waiter<W = ()> {
    pub(super) ticket: u64,
    /// Whether its caller waits for a lock that another holder has. If not, it only tries.
    pub(super) waits: bool,
    pub(super) lease: Span,
    /// When its caller's timeout passes, if ever.
    pub(super) until: Timestamp,
    pub(super) template: &'static str,
    /// The provider that makes its calls, if that is not the slot's first one.
    pub(super) source: Option<Arc<Source>>,
    pub(super) waker: Option<Waker>,
    /// Whether it has left. Its place is removed when its turn comes, or when the queue is tidied.
    pub(super) left: bool,
    pub(super) wish: W,
}

/// What a slot's kind must know of a waiter.
pub(super) trait Wish {
    /// Stands where there is no waiter, or none yet.
    const NONE: Self;
}

impl Wish for () {
    const NONE: Self = ();
}

impl<W: Wish> Waiter<W> {
    const EMPTY: Self = Self {
        ticket: 0,
        waits: false,
        lease: Span::NONE,
        until: Timestamp::NONE,
        template: "",
        source: None,
        waker: None,
        left: false,
        wish: W::NONE,
    };
}

/// Waiters in the order of their tickets.
///
/// Each step for one waiter takes constant time on average, and the search for a ticket takes the
/// logarithm of the number of waiters.
pub(super) struct Queue<W = ()> {
    waiters: VecDeque<Waiter<W>>,
    /// How many of them have not left.
    present: usize,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            waiters: VecDeque::new(),
            present: 0,
        }
    }
}

impl<W: Wish> Queue<W> {
    pub(super) fn len(&self) -> usize {
        self.present
    }

    pub(super) fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// Adds a waiter, for the caller to fill in where it stands. A waiter that was passed in would
    /// be written twice, and the second write would wait for the first.
    #[inline]
    pub(super) fn push(&mut self, ticket: u64) -> &mut Waiter<W> {
        self.present += 1;
        self.waiters.push_back(Waiter::EMPTY);
        let Some(waiter) = self.waiters.back_mut() else {
            unreachable!("just added")
        };
        waiter.ticket = ticket;
        waiter
    }

    /// Returns the first waiter. The first place never is one that was given up.
    pub(super) fn front(&self) -> Option<&Waiter<W>> {
        self.waiters.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter<W>> {
        self.waiters.iter().filter(|waiter| !waiter.left)
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Waiter<W>> {
        let first = self.waiters.pop_front()?;
        self.present -= 1;
        self.tidy();
        Some(first)
    }

    /// Returns the first waiter, to be changed.
    #[inline]
    pub(super) fn front_mut(&mut self) -> Option<&mut Waiter<W>> {
        self.waiters.front_mut()
    }

    /// Drops the first waiter, which has neither a waker nor a provider of its own.
    #[inline]
    pub(super) fn drop_first(&mut self) {
        // Forgotten, since there is nothing to drop and this path is a hot one.
        std::mem::forget(self.waiters.pop_front());
        self.present -= 1;
        self.tidy();
    }

    pub(super) fn get(&mut self, ticket: u64) -> Option<&mut Waiter<W>> {
        let at = self.find(ticket)?;
        self.waiters.get_mut(at).filter(|waiter| !waiter.left)
    }

    /// Takes the waiter of this ticket out.
    pub(super) fn remove(&mut self, ticket: u64) -> Option<Waiter<W>> {
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

    /// Takes out every waiter for which `which` is true.
    pub(super) fn take(&mut self, mut which: impl FnMut(&Waiter<W>) -> bool) -> Vec<Waiter<W>> {
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

    /// Removes places that were given up: those in front, and all if they are most of the queue.
    #[inline]
    fn tidy(&mut self) {
        if self.present != self.waiters.len() {
            self.remove_given_up();
        }
    }

    fn remove_given_up(&mut self) {
        while self.waiters.front().is_some_and(|waiter| waiter.left) {
            self.waiters.pop_front();
        }
        if self.waiters.len() > UNTIDY && self.present < self.waiters.len() / 2 {
            self.waiters.retain(|waiter| !waiter.left);
        }
    }
}
