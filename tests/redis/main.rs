//! What is Redis's own: the protocol between clients and what they leave on the server, other
//! programs on the same keys, and faults of server, network and rights. What every provider must
//! do alike is in the conformance suite.

mod common;

mod addresses;
mod connecting;
mod example;
mod exclusion;
mod faults;
mod min_hold;
mod no_locks;
mod rights;
mod tls;
mod token_floor;
mod tokens;
mod waiting;
