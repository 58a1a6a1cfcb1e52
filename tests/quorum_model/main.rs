//! Models of locks on a majority of independent servers, without any server. Each walks through
//! every interleaving of the steps of three servers and two clients, in which a message may be late
//! or lost, an answer may be lost, and a client may stop for ever. Breadth first, so what breaks a
//! promise is shown with the fewest steps that lead there.
//!
//! `tokens` is about exclusion, fencing tokens, leases, and servers that forget. `queue` is about
//! who is served next. The README of the provider for Redis says what the models have shown.

mod queue;
mod tokens;
mod walk;
