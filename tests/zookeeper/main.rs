//! What is ZooKeeper's own: the nodes that clients leave there, other programs on the same nodes,
//! and faults of server, network and session. What every provider must do alike is in the
//! conformance suite.

mod common;

mod cancellation;
mod connecting;
mod example;
mod failover;
mod faults;
mod loss;
mod loss_scenario;
mod nemesis;
mod nodes;
mod outage;
mod restart;
mod session_takeover;
mod sessions;
mod table;
mod tls;
mod tokens;
mod unanswered;
