//! Tests of what only Redis has: the protocol between clients and what they leave on the server,
//! other programs on the same keys, and faults of server, network and rights. The conformance suite
//! has what every provider must do alike.

mod common;

mod addresses;
mod connecting;
mod dotnet;
mod dotnet_modes;
mod example;
mod exclusion;
mod fairness;
mod faults;
mod groups;
mod holders;
mod interleavings;
mod min_hold;
mod modes_faults;
mod modes_together;
mod no_locks;
mod permits;
mod quorum;
mod read_write;
mod rights;
mod sentinel;
mod several;
mod tls;
mod together;
mod token_floor;
mod tokens;
mod upgrade;
mod waiting;
