//! Tests of what only ZooKeeper has: the nodes that clients leave there, other programs on the same
//! nodes, and faults of server, network and session. The conformance suite has what every provider
//! must do alike.

mod common;

mod cancellation;
mod connecting;
mod example;
mod failover;
mod fairness;
mod faults;
mod foreign;
mod holders;
mod loss;
mod loss_scenario;
mod modes_faults;
mod nemesis;
mod nodes;
mod outage;
mod permits;
mod read_write;
mod restart;
mod sequence;
mod session_takeover;
mod sessions;
mod table;
mod tls;
mod tokens;
mod unanswered;
