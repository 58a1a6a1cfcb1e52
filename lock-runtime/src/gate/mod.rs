//! The gate: one FIFO queue for each key that this process holds or waits for.
//!
//! Servers let one session, lease or connection take its own lock twice, so two tasks of one
//! process could both hold it; the gate lets only the head of its queue talk to the provider. It
//! also keeps the acquisition apart from whoever waits for it: the provider's call belongs to the
//! queue, so that a caller who goes away neither interrupts the call nor loses the process's place
//! on the server while others wait.
//!
//! A slot is in the table for as long as somebody refers to it: a guard, a waiter, a call that is
//! under way. Code of users and providers never runs under its lock: what a change of its state
//! leads to happens afterwards (`Effects`).

mod effects;
mod granted;
mod local_hand_over;
mod looks;
mod min_hold;
mod provider_calls;
mod queue;
mod release_answer;
mod slot;
mod state;

pub(crate) use provider_calls::Release;
pub(crate) use release_answer::Answer;
#[cfg(feature = "testing")]
pub(crate) use slot::entries;
pub(crate) use slot::{Arrival, Look, SlotRef, Wanted, all, enter};
