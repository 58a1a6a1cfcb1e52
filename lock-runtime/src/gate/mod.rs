//! The gate: one FIFO queue for each key that this process holds or waits for.
//!
//! Servers let one session, lease or connection take its own lock twice, so two tasks of one
//! process could both hold it. The gate lets only the head of a key's queue talk to the provider.
//!
//! The provider's call belongs to the queue and not to the caller that waits for it. So a caller
//! that goes away neither interrupts the call nor loses the process's place on the server while
//! others wait.
//!
//! A *slot* is one key with its queue, and a *ticket* is the number of a caller's place there.
//! Callers that only try, and are not first in the queue, are *sharers*: they share the answer of
//! the call for the head.
//!
//! A slot is a mutex's, or one that may have several holders: a reader–writer lock's or a
//! semaphore's. Of the latter, a *hold* is one grant of the provider, and a *share* is what one
//! guard has of it: a reader shares its hold with other readers of the process. Locks of this
//! process alone have no holds, but numbers of what is held *inside*. Files named `shared_…` are
//! about these slots, `rw` and `permits` about what differs between them, and most others about
//! mutexes.
//!
//! A slot is in the table for as long as a guard, a waiter or a call under way refers to it. Code
//! of users and providers never runs under its lock: what a change of its state leads to happens
//! afterwards (`Effects`).

mod acquisition;
mod effects;
mod granted;
mod inspect;
mod local_hand_over;
mod looks;
mod min_hold;
mod permits;
mod queue;
mod release;
mod release_answer;
mod release_call;
mod rw;
mod several;
mod shared_asking;
mod shared_giving;
mod shared_lines;
mod shared_looks;
mod shared_place;
mod shared_state;
mod slot;
mod state;
mod upgrade;
mod upgrade_call;
mod upgrade_state;

pub(crate) use release::Release;
pub(crate) use release_answer::{Answer, ReleaseMode};
pub(crate) use several::{Reach, Sought, Together, ask_together};
pub(crate) use shared_state::Share;
#[cfg(feature = "testing")]
pub(crate) use slot::entries;
pub(crate) use slot::{Arrival, Look, SlotRef, Wanted, all, enter};
pub(crate) use upgrade_state::Upgraded;
