//! Tests of what only PostgreSQL has: the keys and who else may take them, sessions and how many of
//! them there are, and faults of server and network. The conformance suite has what every provider
//! must do alike.

mod common;

mod bounds;
mod cancellation;
mod connecting;
mod example;
mod exclusion;
mod failover;
mod fairness;
mod faults;
mod holders;
mod loss;
mod model;
mod model_modes;
mod modes;
mod modes_faults;
mod nemesis;
mod outage;
mod permits;
mod residue;
mod snapshots;
mod table;
mod tls;
mod tokens;
mod transactions;
mod unanswered;
mod upgrade;
mod waiting;
